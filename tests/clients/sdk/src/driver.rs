//! Element X's stack with encryption, driven over a pipe: `sdk URL driver`.
//!
//! Requests and answers are JSON, one a line; `../../e2ee/run.py` makes them and says what they
//! mean. One process holds any number of devices, each under the name that the other side gives it,
//! and each with both of its sliding syncs: one for rooms, one for encryption.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use matrix_sdk::{
    Client, Room, RoomState,
    encryption::verification::{SasVerification, Verification, VerificationRequestState},
    ruma::{
        OwnedUserId, RoomId, UserId,
        api::client::{room::create_room::v3 as create_room, uiaa},
        events::{
            InitialStateEvent, key::verification::VerificationMethod,
            room::encryption::RoomEncryptionEventContent, room::message::RoomMessageEventContent,
        },
    },
};
use matrix_sdk_ui::{
    sync_service::SyncService,
    timeline::{RoomExt, Timeline},
};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, sleep},
};

use crate::person;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(40);

/// Answers, many at a time, until nothing more is asked.
pub(crate) async fn run(url: &str) -> Result<()> {
    let devices: Arc<Mutex<HashMap<String, Arc<Device>>>> = Arc::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request = Request(serde_json::from_str(&line)?);
        let (url, devices) = (url.to_owned(), Arc::clone(&devices));
        tokio::spawn(async move {
            let id = request.0["id"].clone();
            match answer(&url, &devices, &request).await {
                Ok(value) => println!("{}", json!({"id": id, "value": value})),
                Err(error) => println!("{}", json!({"id": id, "error": format!("{error:#}")})),
            }
        });
    }
    Ok(())
}

async fn answer(
    url: &str,
    devices: &Mutex<HashMap<String, Arc<Device>>>,
    request: &Request,
) -> Result<Value> {
    let name = request.text("device")?;
    if request.text("do")? == "login" {
        let device = Device::log_in(url, request).await?;
        let session = device.client.matrix_auth().session().context("a session")?;
        let login = json!({
            "user_id": session.meta.user_id,
            "device_id": session.meta.device_id,
            "access_token": session.tokens.access_token,
        });
        let mut devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.insert(name.to_owned(), Arc::new(device));
        return Ok(login);
    }
    let device = {
        let devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(devices.get(name).context("a device that logged in")?)
    };
    device.perform(request).await
}

/// What the other side asks for.
struct Request(Value);

impl Request {
    fn text(&self, key: &str) -> Result<&str> {
        self.0[key].as_str().with_context(|| format!("{key} is missing"))
    }

    fn is(&self, key: &str) -> bool {
        self.0[key] == true
    }

    fn user(&self) -> Result<OwnedUserId> {
        Ok(UserId::parse(self.text("user")?)?)
    }
}

/// Waits until a condition gives something, and returns it.
async fn until<T, F>(condition: impl Fn() -> F, what: &str) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(30)).await;
    }
}

/// One device, which follows the server.
struct Device {
    client: Client,
    service: SyncService,
    password: String,
    timelines: tokio::sync::Mutex<HashMap<String, Arc<Timeline>>>,
}

impl Device {
    async fn log_in(url: &str, request: &Request) -> Result<Self> {
        let builder = person::builder(url).with_enable_share_history_on_invite(true);
        let client = builder.build().await?;
        let password = request.text("password")?.to_owned();
        client.matrix_auth().login_username(request.text("user")?, &password).send().await?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        client.event_cache().subscribe()?;
        let service = SyncService::builder(client.clone()).build().await?;
        service.start().await;
        Ok(Self { client, service, password, timelines: tokio::sync::Mutex::default() })
    }

    async fn perform(&self, request: &Request) -> Result<Value> {
        let value = match request.text("do")? {
            "create_room" => self.create_room(request).await?.into(),
            "message" => self.message(request).await?.into(),
            "send" => {
                let content = RoomMessageEventContent::text_plain(request.text("body")?);
                let sent = self.room(request)?.send(content).await?;
                sent.response.event_id.as_str().into()
            }
            "history" => self.history(request).await?.into(),
            "backup" => self.backup().await?.into(),
            "sas_begin" => self.sas_begin(request).await?.into(),
            "sas_numbers" => self.sas_numbers(request).await?,
            _ => {
                self.act(request).await?;
                Value::Null
            }
        };
        Ok(value)
    }

    /// Begins a backup of the keys; gives the recovery key. Whoever asks looks for the keys on the
    /// server: matrix-sdk's own wait for them has been seen not to end.
    async fn backup(&self) -> Result<String> {
        let recovery = self.client.encryption().recovery();
        let enable = recovery.enable();
        let mut progress = Box::pin(enable.subscribe_to_progress());
        let mut enabled = Box::pin(enable.into_future());
        let (mut seen, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            tokio::select! {
                key = &mut enabled => return Ok(key?),
                Some(Ok(step)) = progress.next() => seen.push(format!("{step:?}")),
                () = tokio::time::sleep_until(deadline) => bail!("no backup after {seen:?}"),
            }
        }
    }

    /// What has no answer but that it was done.
    async fn act(&self, request: &Request) -> Result<()> {
        match request.text("do")? {
            "join" => self.join(request).await,
            "leave" => {
                self.timelines.lock().await.remove(request.text("room")?);
                Ok(self.room(request)?.leave().await?)
            }
            "invite" => Ok(self.room(request)?.invite_user_by_id(&request.user()?).await?),
            "members" => {
                let room = self.room(request)?;
                let all =
                    || async { (request.0["count"] == room.joined_members_count()).then_some(()) };
                until(all, "as many members").await
            }
            "knows" => self.knows(request).await,
            "identifies" => {
                let (user, encryption) = (request.user()?, self.client.encryption());
                let known = || async { encryption.get_user_identity(&user).await.ok()? };
                until(known, &format!("{user} has cross-signing keys")).await?;
                Ok(())
            }
            "trusts" => self.trusts(request).await,
            "cross_sign" => self.cross_sign().await,
            "restore" => {
                let key = request.text("key")?;
                self.client.encryption().recovery().recover(key).await?;
                let room_id = RoomId::parse(request.text("room")?)?;
                Ok(self.client.encryption().backups().download_room_keys_for_room(&room_id).await?)
            }
            "sas_answer" => self.sas_answer(request).await,
            "sas_confirm" => {
                let sas = self.sas(request).await.context("a verification")?;
                sas.confirm().await?;
                let over = || async { (sas.is_done() || sas.is_cancelled()).then_some(()) };
                until(over, "the end of the verification").await?;
                ensure!(sas.is_done(), "canceled: {:?}", sas.cancel_info());
                Ok(())
            }
            "pause" | "close" => {
                self.service.stop().await;
                Ok(())
            }
            "resume" => {
                self.service.start().await;
                Ok(())
            }
            other => bail!("{other} is not known"),
        }
    }

    fn room(&self, request: &Request) -> Result<Room> {
        let room_id = RoomId::parse(request.text("room")?)?;
        self.client.get_room(&room_id).context("a room that is known")
    }

    async fn create_room(&self, asked: &Request) -> Result<String> {
        let mut request = create_room::Request::new();
        request.preset = Some(create_room::RoomPreset::PrivateChat);
        let invite = asked.0["invite"].as_array().context("whom to invite")?;
        for user in invite {
            request.invite.push(UserId::parse(user.as_str().context("a user")?)?);
        }
        let encryption = RoomEncryptionEventContent::with_recommended_defaults();
        request.initial_state =
            vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
        let room = self.client.create_room(request).await?;
        self.encrypted(&room).await?;
        Ok(room.room_id().to_string())
    }

    /// Waits for the invitation, and accepts it.
    async fn join(&self, request: &Request) -> Result<()> {
        let invited =
            || async { self.room(request).ok().filter(|room| room.state() == RoomState::Invited) };
        let room = until(invited, "the invitation").await?;
        room.join().await?;
        let joined = || async { (room.state() == RoomState::Joined).then_some(()) };
        until(joined, "the join").await?;
        self.encrypted(&room).await
    }

    async fn encrypted(&self, room: &Room) -> Result<()> {
        let list = self.service.room_list_service();
        list.subscribe_to_rooms(&[room.room_id()]).await;
        let encrypted = || async { room.encryption_state().is_encrypted().then_some(()) };
        until(encrypted, "the room is encrypted").await
    }

    async fn timeline(&self, request: &Request) -> Result<Arc<Timeline>> {
        let mut timelines = self.timelines.lock().await;
        let room = request.text("room")?;
        if let Some(timeline) = timelines.get(room) {
            return Ok(Arc::clone(timeline));
        }
        // Also rooms that were joined by another device come by and by.
        let known = || async { self.room(request).ok() };
        let joined = until(known, "the room").await?;
        self.encrypted(&joined).await?;
        let timeline = Arc::new(joined.timeline().await?);
        timelines.insert(room.to_owned(), Arc::clone(&timeline));
        Ok(timeline)
    }

    /// Waits for a message that was encrypted and is readable.
    async fn message(&self, request: &Request) -> Result<String> {
        let timeline = self.timeline(request).await?;
        let body = Value::from(request.text("body")?);
        let find = || async {
            let events = readable(&timeline).await;
            events.into_iter().find_map(|(event_id, says)| (says == body).then_some(event_id))
        };
        until(find, &format!("the message {body}")).await
    }

    /// The encrypted events of the whole history, and what they say.
    async fn history(&self, request: &Request) -> Result<Map<String, Value>> {
        let timeline = self.timeline(request).await?;
        while !timeline.paginate_backwards(100).await? {}
        Ok(readable(&timeline).await)
    }

    /// Waits until a device is known, or is not.
    async fn knows(&self, request: &Request) -> Result<()> {
        let (user, other, known) = (request.user()?, request.text("other")?, request.is("known"));
        let encryption = self.client.encryption();
        // By itself it asks only when its encryption sync begins anew, half a minute later.
        encryption.request_user_identity(&user).await?;
        let right = || async {
            let device = encryption.get_device(&user, other.into()).await.ok()?;
            (device.is_some_and(|device| !device.is_deleted()) == known).then_some(())
        };
        until(right, &format!("{user} {other} is known: {known}")).await
    }

    async fn trusts(&self, request: &Request) -> Result<()> {
        let (user, encryption) = (request.user()?, self.client.encryption());
        let trusted = || async {
            let trusted = match request.text("other") {
                Ok(other) => encryption.get_device(&user, other.into()).await.ok()??.is_verified(),
                Err(_) => encryption.get_user_identity(&user).await.ok()??.is_verified(),
            };
            trusted.then_some(())
        };
        until(trusted, &format!("{user} {} is trusted", request.0["other"])).await
    }

    async fn cross_sign(&self) -> Result<()> {
        let encryption = self.client.encryption();
        let Err(error) = encryption.bootstrap_cross_signing(None).await else { return Ok(()) };
        let stages = error.as_uiaa_response().context("a stage of authentication")?;
        let user = self.client.user_id().context("a session")?.to_string();
        let user = uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user));
        let mut password = uiaa::Password::new(user, self.password.clone());
        password.session.clone_from(&stages.session);
        let password = uiaa::AuthData::Password(password);
        Ok(encryption.bootstrap_cross_signing(Some(password)).await?)
    }

    async fn sas_begin(&self, request: &Request) -> Result<String> {
        let (user, other) = (request.user()?, request.text("other")?);
        let device = self.client.encryption().get_device(&user, other.into()).await?;
        let device = device.context("a device that is known")?;
        let methods = vec![VerificationMethod::SasV1];
        Ok(device.request_verification_with_methods(methods).await?.flow_id().to_owned())
    }

    async fn sas_answer(&self, request: &Request) -> Result<()> {
        if request.is("bare") {
            let started = || async { self.sas(request).await };
            return Ok(until(started, "a start").await?.accept().await?);
        }
        let (user, flow) = (request.user()?, request.text("flow")?);
        let encryption = self.client.encryption();
        let asked = || encryption.get_verification_request(&user, flow);
        let methods = vec![VerificationMethod::SasV1];
        Ok(until(asked, "a request").await?.accept_with_methods(methods).await?)
    }

    /// The numbers that both sides must see.
    async fn sas_numbers(&self, request: &Request) -> Result<Value> {
        if !request.is("bare") {
            self.sas_start(request).await?;
        }
        let sas = self.sas(request).await.context("a verification")?;
        let shown = || async { sas.decimals() };
        let (first, second, third) = until(shown, "the numbers").await?;
        Ok(json!([first, second, third]))
    }

    /// Who asked starts, once the other side is ready; who was asked accepts the start.
    async fn sas_start(&self, request: &Request) -> Result<()> {
        let (user, flow) = (request.user()?, request.text("flow")?);
        let asked = self.client.encryption().get_verification_request(&user, flow).await;
        let asked = asked.context("a request")?;
        if request.is("begins") {
            let ready = || async { asked.is_ready().then_some(()) };
            until(ready, "the request is accepted").await?;
            asked.start_sas().await?.context("a verification")?;
            return Ok(());
        }
        let started = || async {
            match asked.state() {
                VerificationRequestState::Transitioned { verification } => verification.sas(),
                _ => None,
            }
        };
        Ok(until(started, "the start").await?.accept().await?)
    }

    async fn sas(&self, request: &Request) -> Option<SasVerification> {
        let (user, flow) = (request.user().ok()?, request.text("flow").ok()?);
        self.client.encryption().get_verification(&user, flow).await.and_then(Verification::sas)
    }
}

/// Every event of a timeline that was encrypted, and what it says now.
async fn readable(timeline: &Timeline) -> Map<String, Value> {
    let mut events = Map::new();
    for item in timeline.items().await {
        let Some(event) = item.as_event() else { continue };
        let Some(event_id) = event.event_id() else { continue };
        if event.content().is_unable_to_decrypt() {
            events.insert(event_id.to_string(), Value::Null);
        } else if let Some(message) = event.content().as_message()
            && event.encryption_info().is_some()
        {
            events.insert(event_id.to_string(), message.body().into());
        }
    }
    events
}
