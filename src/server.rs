//! The server: builds everything from the configuration, starts it, drains it and stops it. The
//! only place that knows all parts.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Router, response::Response, routing};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use kv::{EngineOptions, Status, Store};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    appservice_sender::{self, AppserviceSender},
    appservices::{Appservices, AppservicesError},
    backups::Backups,
    client_api::{self, ClientApi, RateLimits},
    config::{self, Config, Serves},
    delayed_events::DelayedEvents,
    egress::{Egress, EgressStartError},
    encryption::Encryption,
    ephemeral::{Presence, Receipts, Typing},
    error::ApiError,
    federation::{
        client::Federation,
        server_keys::{self, Signer},
    },
    federation_api::{self, FederationApi, ServerLimits},
    http::{
        App, AppSettings, ListenError, Listener, ListenerSettings, Route, TlsFiles, TrustedProxies,
    },
    id::Interner,
    media::{FilesError, Media},
    push_gateway::PushGateway,
    rooms::{self, Rooms},
    search::Search,
    storage::{
        identity::{self, IdentityError},
        schema::FAMILIES,
    },
    sync::Sync,
    tasks::Tasks,
    telemetry::metrics::{self, Metrics},
    time::Clock,
    users::{self, Users},
};

/// The share of the memory setting that parsed events take; the rest is the store's.
const EVENT_CACHE_SHARE: u64 = 8;

/// Why the server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of the database cannot be made.
    #[error("the folder {0} cannot be made")]
    Folder(PathBuf, #[source] io::Error),
    /// The database cannot be opened.
    #[error("the database in {0} cannot be opened")]
    Database(PathBuf, #[source] kv::Error),
    /// The database is not this server's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Something that is read at the start cannot be read.
    #[error(transparent)]
    Read(#[from] ApiError),
    /// The client for requests of the server's own cannot be made.
    #[error(transparent)]
    Egress(#[from] EgressStartError),
    /// The application services cannot be read.
    #[error(transparent)]
    Appservices(#[from] AppservicesError),
    /// The store of files cannot be opened.
    #[error(transparent)]
    Media(#[from] FilesError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listener of the metrics cannot be opened.
    #[error("cannot listen on {0} for metrics")]
    Metrics(SocketAddr, #[source] io::Error),
}

/// A server whose parts are wired together; it listens once it is told to.
#[derive(Clone, Debug)]
pub struct Server {
    /// The settings.
    pub config: Arc<Config>,
    /// The store.
    pub store: Store,
    /// The event graph.
    pub rooms: Rooms,
    /// Accounts and what is theirs.
    pub users: Users,
    /// What clients are told.
    pub sync: Sync,
    /// Application services.
    pub appservices: Appservices,
    /// Files of users.
    pub media: Media,
    client: Arc<ClientApi>,
    federation: Arc<FederationApi>,
    tasks: Tasks,
}

/// Opens the store that the configuration names.
pub fn open_store(config: &Config) -> Result<Store, StartError> {
    let path = &config.database.path;
    std::fs::create_dir_all(path).map_err(|error| StartError::Folder(path.clone(), error))?;
    let memory = config.database.memory_bytes();
    let mut options = EngineOptions::with_memory(memory - memory / EVENT_CACHE_SHARE);
    options.synced = config.database.durable;
    Store::open(path, &FAMILIES, &options)
        .map_err(|error| StartError::Database(path.clone(), error))
}

impl Server {
    /// Builds all parts on a store. Must run inside the runtime that will serve. What they do by
    /// themselves begins with [`Server::work`].
    pub async fn build(
        config: Arc<Config>,
        store: Store,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let name = &config.server.name;
        let identity = identity::open(&store, name).await?;
        let interner = Interner::new(identity.interner);
        let signer = Arc::new(server_keys::open(&store, name, &clock).await?);
        let (egress, others) = reach(&config, &signer, &clock)?;
        let reach = (egress.clone(), others.clone());
        let media = Media::open(store.clone(), &config, reach, clock.clone()).await?;
        let rooms = Rooms::new(rooms::Parts {
            store: store.clone(),
            interner,
            signer: signer.clone(),
            clock: clock.clone(),
            default_version: config.rooms.default_version.clone(),
            event_cache_bytes: config.database.memory_bytes() / EVENT_CACHE_SHARE,
        });
        let appservices =
            Appservices::open(store.clone(), name.clone(), &config.appservices, egress.clone())
                .await?;
        let users =
            Users::new(store.clone(), interner, &config, clock.clone(), appservices.clone());
        let times = (interner, clock.clone());
        let encryption = Encryption::new(store.clone(), times, &config, appservices.clone());
        encryption.enter(identity.epoch).await?;
        let tasks = Tasks::default();
        users.prepare().await?;
        rooms.push().load(&store).await.map_err(ApiError::from)?;
        let search = Search::start(rooms.clone(), &config.search, &tasks);
        let typing = Typing::new(store.clone());
        let presence = start_presence(&config, &store, (interner, &clock), &tasks).await?;
        let delayed_events = DelayedEvents::new(rooms.clone(), config.delayed_events.clone());
        let told = (typing.clone(), presence.clone());
        let sync = Sync::start(
            (rooms.clone(), users.clone(), encryption.clone()),
            told,
            identity.epoch,
            &config.limits,
        );
        let client = Arc::new(ClientApi {
            config: config.clone(),
            users: users.clone(),
            encryption,
            appservices: appservices.clone(),
            rooms: rooms.clone(),
            delayed_events,
            receipts: Receipts::new(store.clone()),
            typing,
            presence,
            search,
            sync: sync.clone(),
            limits: RateLimits::new(&config.rate_limits),
            no_limits: RateLimits::none(),
            media: media.clone(),
            egress,
        });
        let federation = federation_api(&config, &store, (signer, others), &media, clock);
        Ok(Self {
            config,
            store,
            rooms,
            users,
            sync,
            appservices,
            media,
            client,
            federation,
            tasks,
        })
    }

    /// Begins what the parts do by themselves: sending to others, tidying up, what is due.
    pub fn work(&self) {
        let (client, tasks) = (&self.client, &self.tasks);
        let (rooms, users) = (self.rooms.clone(), self.users.clone());
        client.delayed_events.start(tasks);
        let parts = appservice_sender::Parts {
            appservices: self.appservices.clone(),
            rooms: rooms.clone(),
            typing: client.typing.clone(),
            presence: client.presence.clone(),
        };
        AppserviceSender::start(parts, tasks);
        PushGateway::start(rooms.clone(), users.clone(), client.egress.clone(), tasks);
        let told = (rooms.clone(), client.presence.clone());
        tasks.spawn(|stop| users::departures::run(users.clone(), told, stop));
        let feed = self.store.feed();
        tasks.spawn(|stop| users::guests::run(users, rooms, feed, stop));
        let media = self.media.clone();
        tasks.spawn(|stop| media.work(stop));
        if let Some(backups) = Backups::new(&self.config.database) {
            let (store, clock) = (self.store.clone(), self.rooms.clock().clone());
            tasks.spawn(|stop| backups.run(store, clock, stop));
        }
    }

    /// The requests that a listener answers.
    pub fn app(&self, serves: Serves) -> App {
        let store = self.store.clone();
        let health = routing::get(move || {
            let answer = health(&store);
            async move { answer }
        });
        let mut router = Router::new().route("/health", health);
        if serves.client() {
            router = router.merge(client_api::routes(self.client.clone()).into_router());
        }
        if serves.federation() && self.config.federation.enabled {
            router = router.merge(federation_api::routes(self.federation.clone()).into_router());
        }
        // Also where nothing else of the federation is answered.
        router = router.merge(federation_api::openid::routes(self.users.clone()).into_router());
        let config = &self.config.server;
        let proxies = config.trusted_proxies.clone();
        let app_settings = AppSettings {
            query_tokens: config.access_token_in_query,
            trusted_proxies: TrustedProxies(proxies),
        };
        App::new(router, app_settings)
    }

    /// Every method and path of the client-server API.
    pub fn client_routes(&self) -> Vec<Route> {
        client_api::routes(self.client.clone()).list().to_vec()
    }

    /// Serves on all listeners until `stop` becomes true; then long polls are answered, running
    /// requests are finished, and what was written is closed.
    pub async fn serve(
        self,
        stop: watch::Receiver<bool>,
        metrics: Option<Metrics>,
    ) -> Result<(), StartError> {
        self.work();
        let mut tasks = JoinSet::new();
        for listener in &self.config.server.listeners {
            let bound = self.bind(listener).await?;
            if let Some(address) = bound.local_address() {
                tracing::info!("listening on {address}");
            } else {
                tracing::info!("listening on {}", listener.address);
            }
            tasks.spawn(bound.serve(self.app(listener.serves), stop.clone()));
        }
        if let (Some(address), Some(metrics)) = (self.config.metrics.listener, metrics) {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| StartError::Metrics(address, error))?;
            let stopped = stopped(stop.clone());
            let metrics = metrics.with_store(self.store.clone());
            tasks.spawn(async move {
                if let Err(error) = metrics::serve(metrics, listener, stopped).await {
                    tracing::error!(%error, "the metrics are served no more");
                }
            });
        }
        stopped(stop).await;
        self.sync.stop();
        tasks.join_all().await;
        self.tasks.stop().await;
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store was not closed cleanly; nothing acknowledged is lost");
        }
        Ok(())
    }

    async fn bind(&self, listener: &config::Listener) -> Result<Listener, ListenError> {
        let tls = listener.tls.as_ref();
        let tls =
            tls.map(|tls| TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() });
        let settings = ListenerSettings {
            head_duration_max: self.config.limits.request_head_timeout(),
            ..ListenerSettings::default()
        };
        Listener::bind(&listener.address, tls.as_ref(), settings).await
    }
}

/// The ways out: to any address, and to other servers.
fn reach(
    config: &Config,
    signer: &Arc<Signer>,
    clock: &Clock,
) -> Result<(Egress, Federation), EgressStartError> {
    let egress = Egress::new(&config.egress)?;
    let whom = config.federation.clone();
    let others = Federation::new(egress.clone(), whom, Arc::clone(signer), clock.clone());
    Ok((egress, others))
}

fn federation_api(
    config: &Config,
    store: &Store,
    (signer, federation): (Arc<Signer>, Federation),
    media: &Media,
    clock: Clock,
) -> Arc<FederationApi> {
    let (store, media) = (store.clone(), media.clone());
    let limits = ServerLimits::new(&config.rate_limits);
    Arc::new(FederationApi { store, signer, federation, media, limits, clock })
}

async fn start_presence(
    config: &Config,
    store: &Store,
    (interner, clock): (Interner, &Clock),
    tasks: &Tasks,
) -> Result<Presence, ApiError> {
    let (store, clock) = (store.clone(), clock.clone());
    if config.presence.enabled {
        Presence::start(store, interner, clock, tasks).await
    } else {
        Ok(Presence::disabled(store, interner, clock))
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether the server does its work, for load balancers and monitors.
fn health(store: &Store) -> Response {
    let (status, body) = match store.status() {
        Status::Ready => (StatusCode::OK, json!({ "status": "ok" })),
        Status::ReadOnly(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "read-only", "reason": reason }))
        }
    };
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
