//! Requests to a listener of the test.

use std::{net::Ipv4Addr, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, header},
    response::Redirect,
    routing::get,
};
use http::Method;
use tokio::net::TcpListener;
use url::Url;

use super::*;

async fn listener() -> (u16, tokio::task::JoinHandle<()>) {
    let router = Router::new()
        .route("/large", get(|| async { vec![0_u8; 5000] }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/there", get(|| async { Redirect::temporary("/here") }))
        .route("/private", get(|| async { Redirect::temporary("http://127.0.0.2:9/") }))
        .route(
            "/here",
            get(|headers: HeaderMap| async move {
                headers.get(header::USER_AGENT).unwrap().to_str().unwrap().to_owned()
            }),
        )
        .route(
            "/slow",
            get(|| async {
                std::future::pending::<()>().await;
            }),
        );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        axum::serve(listener, router).await.unwrap();
    });
    (port, task)
}

fn call(url: &str, reach: Reach) -> Call {
    Call {
        method: Method::GET,
        url: Url::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        reach,
        limits: Limits { duration_max: Duration::from_mins(10), bytes_max: 4096, redirects_max: 3 },
    }
}

/// An egress that may reach one loopback address and none else.
fn egress() -> Egress {
    let config = EgressConfig {
        allowed_networks: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        ..EgressConfig::default()
    };
    Egress::new(&config).unwrap()
}

#[tokio::test]
async fn caps_and_redirects_hold() {
    let (port, _task) = listener().await;
    let egress = egress();
    let go =
        |path: &str| egress.call(call(&format!("http://localhost:{port}{path}"), Reach::Public));
    let answer = go("/there").await.unwrap();
    assert_eq!(answer.url.path(), "/here");
    assert!(answer.body.starts_with(b"Causerie/"));
    assert!(matches!(go("/large").await, Err(EgressError::TooLarge)));
    assert!(matches!(go("/loop").await, Err(EgressError::Redirects)));
    let mut slow = call(&format!("http://localhost:{port}/slow"), Reach::Public);
    slow.limits.duration_max = Duration::from_millis(500);
    assert!(matches!(egress.call(slow).await, Err(EgressError::Timeout)));
    assert!(matches!(go("/private").await, Err(EgressError::Blocked(_))));
}

/// Attack case T101: names that lead inside.
#[tokio::test]
async fn t101_a_name_is_checked_once_it_is_resolved() {
    let (port, _task) = listener().await;
    let egress = Egress::new(&EgressConfig::default()).unwrap();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{port}/here");
        let outcome = egress.call(call(&url, Reach::Public)).await;
        assert!(matches!(outcome, Err(EgressError::Blocked(_))), "{host}: {outcome:?}");
        egress.call(call(&url, Reach::Configured)).await.expect(host);
    }
}
