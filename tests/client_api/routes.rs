//! The routes of the server, for `tests/openapi`, which compares them with the specification's.

use std::fs;

use serde_json::json;

use crate::harness::{TestServer, record};

#[tokio::test]
async fn every_route_is_listed_once() {
    let server = TestServer::new().await;
    let mut routes = server.server.client_routes();
    let count = routes.len();
    assert!(count > 150, "{count} routes");
    if let Some(folder) = record::folder() {
        let list: Vec<_> = routes
            .iter()
            .map(|route| json!({ "method": route.method, "path": route.path }))
            .collect();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("routes.json"), json!(list).to_string()).unwrap();
    }
    routes.sort();
    routes.dedup();
    assert_eq!(routes.len(), count);
}
