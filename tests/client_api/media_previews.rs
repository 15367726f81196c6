//! Previews of pages, with a site in the test.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use bytes::Bytes;
use causerie::config::Config;
use futures::StreamExt;
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{Answer, Client, TestServer, encode};

/// A site, and how often it was asked.
struct Site {
    origin: String,
    asked: Arc<AtomicUsize>,
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, content_type)], body.into()).into_response()
}

fn html(text: impl Into<String>) -> Response {
    typed("text/html; charset=utf-8", text.into())
}

/// A PNG of one pixel.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::DynamicImage::ImageRgb8(image::RgbImage::new(3, 2));
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn endless(interval: Duration, bytes: usize) -> Body {
    let parts = futures::stream::repeat(()).then(move |()| async move {
        tokio::time::sleep(interval).await;
        Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))
    });
    Body::from_stream(parts)
}

fn page(what: &str) -> Response {
    match what {
        "page" => html(
            "<title>T</title><meta property=og:title content='A page'>\
             <meta property=og:image content=/png>\
             <link type=application/json+oembed href=/oembed>",
        ),
        "oembed" => typed("application/json", r#"{"provider_name":"The site","title":"no"}"#),
        "png" => typed("image/png", png()),
        "there" => Redirect::temporary("/page").into_response(),
        "loop" => Redirect::temporary("/loop").into_response(),
        "to-denied" => Redirect::temporary("/denied").into_response(),
        "inside" => Redirect::temporary("http://127.0.0.2:9/").into_response(),
        "denied" => html("<title>Secret</title>"),
        "with-denied" => html(
            "<title>T</title><meta property=og:image content=/denied>\
             <link type=application/json+oembed href=/denied>",
        ),
        "fake-image" => html("<title>T</title><meta property=og:image content=/page>"),
        "audio" => typed("audio/mpeg", endless(Duration::ZERO, 10_000)),
        "slow" => typed("text/html", endless(Duration::from_millis(50), 1)),
        "large" => {
            let start = futures::stream::iter([Ok(Bytes::from("<title>Large</title>"))]);
            typed(
                "text/html",
                Body::from_stream(start.chain(endless(Duration::ZERO, 10_000).into_data_stream())),
            )
        }
        "deep" => html(format!("<title>Deep</title>{}", "<div>".repeat(100_000))),
        _ => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}

impl Site {
    async fn open() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let router = Router::new().route(
            "/{what}",
            get(move |Path(what): Path<String>| {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = page(&what);
                async move { answer }
            }),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { origin, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn enabled(config: &mut Config) {
    config.url_previews.enabled = true;
    config.url_previews.timeout_ms = 5_000;
    config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
}

async fn preview(client: &Client<'_>, url: &str) -> Answer {
    client.get(&format!("v1/media/preview_url?url={}", encode(url))).await
}

#[tokio::test]
async fn a_page_is_described() {
    let site = Site::open().await;
    let server = TestServer::with(enabled).await;
    let alice = server.client("alice").await;
    let fields = preview(&alice, &format!("{}/there#part", site.origin)).await.ok();
    assert_eq!(fields["og:title"], "A page");
    assert_eq!(fields["og:site_name"], "The site");
    assert_eq!(fields["og:image:type"], "image/png");
    assert_eq!((&fields["og:image:width"], &fields["og:image:height"]), (&json!(3), &json!(2)));
    assert_eq!(fields["matrix:image:size"], png().len());
    let image = fields["og:image"].as_str().unwrap().strip_prefix("mxc://").unwrap();
    assert_eq!(alice.download(image).await.bytes, png());
    // It is kept for a while, also under the old addresses.
    let asked = site.asked();
    assert_eq!(asked, 4);
    let url = encode(&format!("{}/there", site.origin));
    let again = alice.get(&format!("/_matrix/media/v3/preview_url?url={url}")).await.ok();
    assert_eq!((again, site.asked()), (fields, asked));
    server.pass(60 * 60);
    preview(&alice, &format!("{}/there", site.origin)).await.ok();
    assert_eq!(site.asked(), 2 * asked);
    let capabilities = alice.get("v3/capabilities").await.ok();
    let previews = &capabilities["capabilities"]["io.element.msc4452.preview_url"];
    assert_eq!(previews, &json!({ "enabled": true }));
}

#[tokio::test]
async fn a_picture_is_its_own_preview() {
    let site = Site::open().await;
    let server = TestServer::with(enabled).await;
    let alice = server.client("alice").await;
    let fields = preview(&alice, &format!("{}/png", site.origin)).await.ok();
    assert_eq!(fields["og:image:type"], "image/png");
}

#[tokio::test]
async fn what_many_ask_for_is_fetched_once() {
    let site = Site::open().await;
    let server = TestServer::with(enabled).await;
    let alice = server.client("alice").await;
    let url = format!("{}/deep", site.origin);
    let answers = futures::future::join_all((0..10).map(|_| preview(&alice, &url))).await;
    for answer in answers {
        assert_eq!(answer.ok(), json!({ "og:title": "Deep" }));
    }
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn there_are_no_previews_until_they_are_allowed() {
    let site = Site::open().await;
    let server = TestServer::with(|config| {
        enabled(config);
        config.url_previews.enabled = false;
    })
    .await;
    let alice = server.client("alice").await;
    let answer = preview(&alice, &format!("{}/page", site.origin)).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let old = format!("/_matrix/media/v3/preview_url?url={}/page", site.origin);
    assert_eq!(alice.get(&old).await.outcome(), (403, "M_FORBIDDEN"));
    let answer = server.get("v1/media/preview_url?url=x").send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
    assert_eq!(site.asked(), 0);
}

#[tokio::test]
async fn t101_previews_do_not_reach_inside() {
    let site = Site::open().await;
    let server = TestServer::with(enabled).await;
    let alice = server.client("alice").await;
    let port = site.origin.rsplit(':').next().unwrap();
    let urls = [
        format!("{}/inside", site.origin),
        format!("http://127.0.0.2:{port}/page"),
        format!("http://a@127.0.0.1:{port}/page"),
        format!("http://[::ffff:127.0.0.2]:{port}/page"),
        format!("http://0.0.0.0:{port}/page"),
        format!("http://[::]:{port}/page"),
        "http://127.0.0.1:22/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://localhost.:25/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://example.org/".to_owned(),
    ];
    for url in urls {
        let answer = preview(&alice, &url).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{url}");
    }
    // The redirect itself.
    assert_eq!(site.asked(), 1);
    assert_eq!(preview(&alice, "nonsense").await.outcome(), (400, "M_INVALID_PARAM"));
    let answer = alice.get("v1/media/preview_url").await;
    assert_eq!(answer.outcome(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn t103_hostile_pages_end() {
    let site = Site::open().await;
    let server = TestServer::with(enabled).await;
    let alice = server.client("alice").await;
    let of = |what: &str| {
        let url = format!("{}/{what}", site.origin);
        let alice = &alice;
        async move { preview(alice, &url).await }
    };
    assert_eq!(of("audio").await.ok(), json!({}));
    assert_eq!(of("large").await.ok(), json!({ "og:title": "Large" }));
    assert_eq!(of("deep").await.ok(), json!({ "og:title": "Deep" }));
    assert_eq!(of("fake-image").await.ok(), json!({ "og:title": "T" }));
    assert_eq!(of("loop").await.outcome(), (502, "M_UNKNOWN"));
    assert_eq!(of("nothing").await.outcome(), (502, "M_UNKNOWN"));

    let server = TestServer::with(|config| {
        enabled(config);
        config.url_previews.timeout_ms = 300;
    })
    .await;
    let alice = server.client("alice").await;
    let answer = preview(&alice, &format!("{}/slow", site.origin)).await;
    assert_eq!(answer.outcome(), (502, "M_UNKNOWN"));
}

#[tokio::test]
async fn t104_denied_addresses_are_not_fetched() {
    let site = Site::open().await;
    let denied = format!("{}/denied", site.origin);
    let server = TestServer::with(|config| {
        enabled(config);
        config.url_previews.denied_urls = vec![format!("{denied}*")];
    })
    .await;
    let alice = server.client("alice").await;
    let answer = preview(&alice, &denied).await;
    assert_eq!((answer.outcome(), site.asked()), ((403, "M_FORBIDDEN"), 0));
    let answer = preview(&alice, &format!("{}/to-denied", site.origin)).await;
    assert_eq!((answer.outcome(), site.asked()), ((403, "M_FORBIDDEN"), 1));
    let answer = preview(&alice, &format!("{}/with-denied", site.origin)).await;
    assert_eq!((answer.ok(), site.asked()), (json!({ "og:title": "T" }), 2));
}
