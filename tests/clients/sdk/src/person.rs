//! A person with one client whose list of rooms is kept up to date.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use matrix_sdk::{
    Client, ClientBuilder, Room, ThreadingSupport,
    authentication::matrix::MatrixSession,
    ruma::{
        OwnedUserId, RoomId,
        api::client::{
            account::register::v3 as register,
            uiaa::{AuthData, Dummy},
        },
    },
    sliding_sync::VersionBuilder,
    store::RoomLoadSettings,
};
use matrix_sdk_ui::{RoomListService, room_list_service::RoomListLoadingState};
use tokio::task::JoinHandle;

const PASSWORD: &str = "correct horse battery staple";

pub(crate) struct Person {
    url: String,
    pub(crate) client: Client,
    pub(crate) service: Arc<RoomListService>,
    sync: JoinHandle<()>,
}

impl Drop for Person {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

impl Person {
    /// A new user.
    pub(crate) async fn register(url: &str, name: &str) -> Result<Self> {
        let client = client(url).await?;
        let mut request = register::Request::new();
        request.username = Some(name.to_owned());
        request.password = Some(PASSWORD.to_owned());
        let auth = client.matrix_auth();
        let Err(error) = auth.register(request.clone()).await else {
            anyhow::bail!("registration asks for a stage first")
        };
        let stages = error.as_uiaa_response().context("registration names its stages")?;
        let mut dummy = Dummy::new();
        dummy.session.clone_from(&stages.session);
        request.auth = Some(AuthData::Dummy(dummy));
        auth.register(request).await?;
        Self::start(url, client).await
    }

    /// A new device of a user.
    pub(crate) async fn log_in(url: &str, name: &str) -> Result<Self> {
        let client = client(url).await?;
        client.matrix_auth().login_username(name, PASSWORD).send().await?;
        Self::start(url, client).await
    }

    /// The same device after its memory is gone.
    pub(crate) async fn again(&self) -> Result<Self> {
        self.stop();
        let session: MatrixSession = self.client.matrix_auth().session().context("a session")?;
        let client = client(&self.url).await?;
        client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await?;
        Self::start(&self.url, client).await
    }

    async fn start(url: &str, client: Client) -> Result<Self> {
        client.event_cache().subscribe()?;
        let service = Arc::new(RoomListService::new(client.clone()).await?);
        let syncing = Arc::clone(&service);
        let name = client.user_id().context("a session")?.localpart().to_owned();
        let sync = tokio::spawn(async move {
            loop {
                let stream = syncing.sync();
                let mut stream = std::pin::pin!(stream);
                while let Some(step) = stream.next().await {
                    if let Err(error) = step {
                        println!("sdk: a sync of {name} failed: {error}");
                    }
                }
            }
        });
        Ok(Self { url: url.to_owned(), client, service, sync })
    }

    /// Ends following the server.
    pub(crate) fn stop(&self) {
        self.sync.abort();
    }

    pub(crate) fn user_id(&self) -> OwnedUserId {
        self.client.user_id().expect("the client is logged in").to_owned()
    }

    /// A room, whatever the user is to it.
    pub(crate) fn room(&self, room_id: &RoomId) -> Option<Room> {
        self.client.get_room(room_id)
    }

    /// A room that was joined.
    pub(crate) fn joined(&self, room_id: &RoomId) -> Result<Room> {
        self.room(room_id).with_context(|| format!("{room_id} is not known"))
    }

    /// How many rooms the server says there are.
    pub(crate) async fn maximum_number_of_rooms(&self) -> Result<Option<u32>> {
        match self.service.all_rooms().await?.loading_state().get() {
            RoomListLoadingState::NotLoaded => Ok(None),
            RoomListLoadingState::Loaded { maximum_number_of_rooms } => Ok(maximum_number_of_rooms),
        }
    }
}

async fn client(url: &str) -> Result<Client> {
    Ok(builder(url).build().await?)
}

/// What every client is made from.
pub(crate) fn builder(url: &str) -> ClientBuilder {
    Client::builder()
        .homeserver_url(url)
        .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
        .with_threading_support(ThreadingSupport::Enabled { with_subscriptions: true })
}
