//! One HTTP/1.1 connection, kept alive, of one simulated user: as little of a client as possible,
//! so that what is measured is the server.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection, and the access token that its requests carry.
pub(crate) struct Client {
    address: SocketAddr,
    requests: SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Client {
    /// Opens a connection.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting to the server")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends by itself, with the connection; what goes wrong shows in the request under way.
        tokio::spawn(connection);
        Ok(Self { address, requests, token: None })
    }

    /// The token of all further requests.
    pub(crate) fn authenticate(&mut self, token: &str) {
        self.token = Some(format!("Bearer {token}"));
    }

    /// One request and its whole answer, whatever its status.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.exchange(method, &format!("/_matrix/client{path}"), body).await
    }

    /// What is answered to a GET of a path that is not of the client-server API; a 200.
    pub(crate) async fn page(&mut self, path: &str) -> Result<String> {
        let (status, answer) = self.exchange(Method::GET, path, Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "{path}: {status}");
        Ok(String::from_utf8(answer.into())?)
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.requests.ready().await.context("the server has closed the connection")?;
        let answer = self.requests.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The body of an answer that must be a 200.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        if status != StatusCode::OK {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// The JSON of an answer to a POST that must be a 200.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = Bytes::from(body.to_string());
        Ok(serde_json::from_slice(&self.ask(Method::POST, path, body).await?)?)
    }
}
