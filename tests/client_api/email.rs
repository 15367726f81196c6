//! E-mail addresses of accounts, against a mail server of the test's own.

use std::time::Duration;

use causerie::config::{Config, RateLimit, Secret};
use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::harness::{Answer, Client, PASSWORD, TestServer, password_stage};

/// A mail as the mail server got it.
struct Mail {
    to: String,
    text: String,
}

impl Mail {
    /// The link in the mail, without the address of the server.
    fn link(&self) -> Option<String> {
        let start = self.text.find("https://matrix.example.org/")?;
        let link: String =
            self.text[start..].chars().take_while(|sign| !sign.is_whitespace()).collect();
        link.strip_prefix("https://matrix.example.org").map(str::to_owned)
    }
}

struct Mails(UnboundedReceiver<Mail>);

impl Mails {
    async fn next(&mut self) -> Mail {
        let next = tokio::time::timeout(Duration::from_mins(1), self.0.recv());
        next.await.expect("a mail comes").unwrap()
    }

    fn none_waits(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// Takes mails over SMTP, just enough of it.
async fn mail_server() -> (String, Mails) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take_mail(stream, sender.clone()));
        }
    });
    (url, Mails(receiver))
}

async fn take_mail(stream: TcpStream, mails: UnboundedSender<Mail>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 sink\r\n").await.unwrap();
    let (mut to, mut text, mut in_data) = (String::new(), String::new(), false);
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = if in_data && line == "." {
            in_data = false;
            let text = std::mem::take(&mut text).replace("=\r\n", "").replace("=3D", "=");
            mails.send(Mail { to: to.clone(), text }).unwrap();
            "250 taken\r\n"
        } else if in_data {
            text.push_str(&line);
            text.push_str("\r\n");
            continue;
        } else if let Some(rest) = line.strip_prefix("RCPT TO:<") {
            rest.split('>').next().unwrap().clone_into(&mut to);
            "250 yes\r\n"
        } else if line == "DATA" {
            in_data = true;
            "354 go on\r\n"
        } else if line == "QUIT" {
            "221 bye\r\n"
        } else {
            "250 yes\r\n"
        };
        write.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn server() -> (TestServer, Mails) {
    server_with(|_| {}).await
}

async fn server_with(change: impl FnOnce(&mut Config)) -> (TestServer, Mails) {
    let (url, mails) = mail_server().await;
    let server = TestServer::with(|config| {
        config.email.smtp_url = Some(Secret::new(url));
        config.email.from = Some("Causerie <noreply@example.org>".to_owned());
        config.server.public_base_url = Some("https://matrix.example.org".parse().unwrap());
        change(config);
    })
    .await;
    (server, mails)
}

async fn ask(server: &TestServer, what: &str, email: &str, secret: &str, attempt: u32) -> Answer {
    let body = json!({
        "client_secret": secret,
        "email": email,
        "send_attempt": attempt,
        "next_link": "https://evil.example/",
    });
    server.post(&format!("v3/{what}/email/requestToken"), body).send().await
}

async fn confirm(server: &TestServer, link: &str) -> Answer {
    let page = server.get(link).send().await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["x-frame-options"], "DENY");
    let (path, query) = link.split_once('?').unwrap();
    let call = server.call(Method::POST, path);
    call.header("content-type", "application/x-www-form-urlencoded").body(query).send().await
}

fn sid(answer: Answer) -> String {
    answer.ok()["sid"].as_str().unwrap().to_owned()
}

/// Adds an address to an account, after its mail was asked for.
async fn add(client: &Client<'_>, name: &str, sid: &str, secret: &str) -> Answer {
    let body = json!({ "sid": sid, "client_secret": secret });
    let challenge = client.post("v3/account/3pid/add", body).await;
    assert_eq!(challenge.outcome(), (401, ""));
    let auth = password_stage(name, PASSWORD, challenge.body["session"].as_str().unwrap());
    let body = json!({ "sid": sid, "client_secret": secret, "auth": auth });
    client.post("v3/account/3pid/add", body).await
}

async fn with_address(client: &Client<'_>, mails: &mut Mails, name: &str, address: &str) {
    let sid = sid(ask(client.server, "account/3pid", address, name, 1).await);
    let link = mails.next().await.link().unwrap();
    assert_eq!(confirm(client.server, &link).await.status, 200);
    add(client, name, &sid, name).await.ok();
}

#[tokio::test]
async fn an_address_is_added_used_and_removed() {
    let (server, mut mails) = server().await;
    let alice = server.client("alice").await;
    let first = sid(ask(&server, "account/3pid", "Alice@Example.com", "s1", 1).await);
    let mail = mails.next().await;
    assert_eq!(mail.to, "alice@example.com");
    assert!(!mail.text.contains("evil.example"));
    let early = add(&alice, "alice", &first, "s1").await;
    assert_eq!(early.outcome(), (400, "M_THREEPID_AUTH_FAILED"), "not confirmed yet");
    confirm(&server, &mail.link().unwrap()).await;
    add(&alice, "alice", &first, "s1").await.ok();
    let known = alice.get("v3/account/3pid").await.ok();
    assert_eq!(known["threepids"][0]["address"], json!("alice@example.com"));
    assert_eq!(known["threepids"][0]["medium"], json!("email"));
    let login = |address: &str| {
        let identifier =
            json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
        let body = json!({
            "type": "m.login.password",
            "identifier": identifier,
            "password": PASSWORD,
        });
        server.post("v3/login", body).send()
    };
    assert_eq!(login("ALICE@example.com").await.ok()["user_id"], json!(alice.id()));
    assert_eq!(login("bob@example.com").await.outcome(), (403, "M_FORBIDDEN"));
    let body = json!({ "medium": "email", "address": "Alice@example.com" });
    let removed = alice.post("v3/account/3pid/delete", body).await.ok();
    assert_eq!(removed, json!({ "id_server_unbind_result": "no-support" }));
    assert_eq!(login("alice@example.com").await.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t70_a_proof_is_good_once_and_for_one_address() {
    let (server, mut mails) = server().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let first = sid(ask(&server, "account/3pid", "a@example.com", "s1", 1).await);
    let other = ask(&server, "account/3pid", "b@example.com", "s1", 2).await;
    assert_eq!(other.outcome(), (400, "M_INVALID_PARAM"));
    let again = sid(ask(&server, "account/3pid", "a@example.com", "s1", 1).await);
    assert_eq!(again, first, "the same attempt sends no mail");
    let link = mails.next().await.link().unwrap();
    assert!(mails.none_waits());
    confirm(&server, &link).await;
    // Another purpose has other proofs.
    let auth = json!({
        "type": "m.login.email.identity",
        "threepid_creds": { "sid": first, "client_secret": "s1" },
    });
    let body = json!({ "new_password": "new", "auth": auth });
    let answer = server.post("v3/account/password", body).send().await;
    assert_eq!(answer.status, 401);
    assert_eq!(add(&bob, "bob", &first, "s2").await.outcome(), (400, "M_THREEPID_AUTH_FAILED"));
    add(&alice, "alice", &first, "s1").await.ok();
    let reused = add(&alice, "alice", &first, "s1").await;
    assert_eq!(reused.outcome(), (400, "M_THREEPID_AUTH_FAILED"));
    // Who already has an address is told in the mail alone.
    let answer = sid(ask(&server, "account/3pid", "a@example.com", "s3", 1).await);
    let mail = mails.next().await;
    assert_eq!(mail.link(), None);
    assert_eq!(add(&bob, "bob", &answer, "s3").await.outcome(), (400, "M_THREEPID_AUTH_FAILED"));
}

#[tokio::test]
async fn t70_tokens_are_guessed_five_times_at_most() {
    let (server, mut mails) = server().await;
    ask(&server, "account/3pid", "a@example.com", "s1", 1).await.ok();
    let link = mails.next().await.link().unwrap();
    let wrong = format!("{}AAAA", link.split_once("token=").unwrap().0.to_owned() + "token=");
    for _ in 0..5 {
        assert_eq!(confirm(&server, &wrong).await.status, 403);
    }
    assert_eq!(confirm(&server, &wrong).await.status, 429);
    assert_eq!(confirm(&server, &link).await.status, 429);
}

#[tokio::test]
async fn t70_a_password_is_reset_and_nobody_learns_who_has_an_account() {
    let (server, mut mails) = server().await;
    let alice = server.client("alice").await;
    with_address(&alice, &mut mails, "alice", "a@example.com").await;
    let known = ask(&server, "account/password", "a@example.com", "s1", 1).await;
    let link = mails.next().await.link().unwrap();
    let unknown = ask(&server, "account/password", "nobody@example.com", "s2", 1).await;
    assert_eq!(mails.next().await.link(), None);
    assert_eq!(known.status, unknown.status);
    let fields = |answer: &Answer| -> Vec<String> {
        answer.body.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(fields(&known), fields(&unknown));
    let (known, unknown) = (sid(known), sid(unknown));
    let reset = |sid: &str, secret: &str, session: Value| {
        let auth = json!({
            "type": "m.login.email.identity",
            "threepid_creds": { "sid": sid, "client_secret": secret },
            "session": session,
        });
        let body = json!({ "new_password": "brand new", "auth": auth });
        server.post("v3/account/password", body).send()
    };
    let challenge = server.post("v3/account/password", json!({ "new_password": "brand new" }));
    let challenge = challenge.send().await;
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.email.identity"] }]));
    let session = challenge.body["session"].clone();
    assert_eq!(reset(&unknown, "s2", json!("none")).await.status, 401);
    assert_eq!(reset(&known, "s1", session.clone()).await.outcome(), (401, "M_UNAUTHORIZED"));
    confirm(&server, &link).await;
    reset(&known, "s1", session).await.ok();
    assert_eq!(alice.get("v3/account/whoami").await.outcome(), (401, "M_UNKNOWN_TOKEN"));
    server.try_login("alice", "brand new").await.ok();
    assert_eq!(server.try_login("alice", PASSWORD).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(reset(&known, "s1", json!("none")).await.status, 401, "the proof is used up");
}

#[tokio::test]
async fn t68_a_deactivated_account_has_no_address() {
    let (server, mut mails) = server().await;
    let alice = server.client("alice").await;
    with_address(&alice, &mut mails, "alice", "a@example.com").await;
    let challenge = alice.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("alice", PASSWORD, challenge.body["session"].as_str().unwrap());
    alice.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    ask(&server, "account/password", "a@example.com", "s1", 1).await.ok();
    assert_eq!(mails.next().await.link(), None);
}

#[tokio::test]
async fn registration_may_ask_for_an_address() {
    let (url, mut mails) = mail_server().await;
    let server = TestServer::with(|config| {
        config.email.smtp_url = Some(Secret::new(url));
        config.email.from = Some("noreply@example.org".to_owned());
        config.server.public_base_url = Some("https://matrix.example.org/".parse().unwrap());
        config.registration.require_email = true;
    })
    .await;
    let challenge = server.post("v3/register", json!({})).send().await;
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.email.identity"] }]));
    let proof = sid(ask(&server, "register", "a@example.com", "s1", 1).await);
    let register = |name: &str| {
        let auth = json!({
            "type": "m.login.email.identity",
            "threepid_creds": { "sid": proof, "client_secret": "s1" },
            "session": challenge.body["session"],
        });
        let body = json!({ "username": name, "password": PASSWORD, "auth": auth });
        server.post("v3/register", body).send()
    };
    assert_eq!(register("alice").await.outcome(), (401, "M_UNAUTHORIZED"));
    confirm(&server, &mails.next().await.link().unwrap()).await;
    let alice = register("alice").await.ok();
    let token = alice["access_token"].as_str().unwrap();
    let known = server.get("v3/account/3pid").token(token).send().await.ok();
    assert_eq!(known["threepids"][0]["address"], json!("a@example.com"));
    assert_eq!(register("bob").await.status, 401, "the proof is used up");
    ask(&server, "register", "a@example.com", "s2", 1).await.ok();
    let mail = mails.next().await;
    assert_eq!(mail.link(), None, "an account has the address");
}

#[tokio::test]
async fn who_registers_may_give_an_address() {
    let (url, mut mails) = mail_server().await;
    let server = TestServer::with(|config| {
        config.email.smtp_url = Some(Secret::new(url));
        config.email.from = Some("noreply@example.org".to_owned());
        config.server.public_base_url = Some("https://matrix.example.org/".parse().unwrap());
    })
    .await;
    let challenge = server.post("v3/register", json!({})).send().await;
    let stages = json!([{ "stages": ["m.login.dummy"] }, { "stages": ["m.login.email.identity"] }]);
    assert_eq!(challenge.body["flows"], stages);
    let proof = sid(ask(&server, "register", "a@example.com", "s1", 1).await);
    confirm(&server, &mails.next().await.link().unwrap()).await;
    let auth = json!({
        "type": "m.login.email.identity",
        "threepid_creds": { "sid": proof, "client_secret": "s1" },
        "session": challenge.body["session"],
    });
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
    let alice = server.post("v3/register", body).send().await.ok();
    let token = alice["access_token"].as_str().unwrap();
    let known = server.get("v3/account/3pid").token(token).send().await.ok();
    assert_eq!(known["threepids"][0]["address"], json!("a@example.com"));
    // Without one it goes as well.
    server.register("bob").await;
}

#[tokio::test]
async fn what_this_server_does_not_do_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let unsupported = (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    for what in ["account/3pid", "register", "account/password"] {
        assert_eq!(ask(&server, what, "a@example.com", "s", 1).await.outcome(), unsupported);
        let body = json!({
            "client_secret": "s",
            "country": "DE",
            "phone_number": "0123",
            "send_attempt": 1,
        });
        let answer = server.post(&format!("v3/{what}/msisdn/requestToken"), body).send().await;
        assert_eq!(answer.outcome(), unsupported);
    }
    let body = json!({
        "client_secret": "s",
        "sid": "x",
        "id_server": "id.example",
        "id_access_token": "t",
    });
    let answer = alice.post("v3/account/3pid/bind", body).await;
    assert_eq!(answer.outcome(), (400, "M_SERVER_NOT_TRUSTED"));
    let answer = alice.post("v3/account/3pid", json!({ "three_pid_creds": {} })).await;
    assert_eq!(answer.outcome(), (403, "M_THREEPID_AUTH_FAILED"));
    let body = json!({ "medium": "email", "address": "a@example.com" });
    let answer = alice.post("v3/account/3pid/unbind", body).await.ok();
    assert_eq!(answer, json!({ "id_server_unbind_result": "no-support" }));
    let reset = server.post("v3/account/password", json!({ "new_password": "x" })).send().await;
    assert_eq!(reset.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn t74_a_stage_by_mail_has_pages() {
    let (url, mut mails) = mail_server().await;
    let server = TestServer::with(|config| {
        config.email.smtp_url = Some(Secret::new(url));
        config.email.from = Some("noreply@example.org".to_owned());
        config.server.public_base_url = Some("https://matrix.example.org/".parse().unwrap());
        config.registration.require_email = true;
    })
    .await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let challenge = server.post("v3/register", body).send().await;
    let session = challenge.body["session"].as_str().unwrap();
    let path = "v3/auth/m.login.email.identity/fallback/web";
    let send = |form: String| {
        let call = server.call(Method::POST, path);
        call.header("content-type", "application/x-www-form-urlencoded").body(form).send()
    };
    let page = send(format!("session={session}&email=a%40example.com")).await;
    assert_eq!(page.status, 200);
    let hidden = |name: &str| {
        let start = format!("name=\"{name}\" value=\"");
        let after = page.text.split(&start).nth(1).unwrap();
        after.split('"').next().unwrap().to_owned()
    };
    let form = format!("session={session}&sid={}&secret={}", hidden("sid"), hidden("secret"));
    assert_eq!(send(form.clone()).await.status, 403, "not confirmed yet");
    confirm(&server, &mails.next().await.link().unwrap()).await;
    assert_eq!(send(form).await.status, 200);
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": { "session": session } });
    server.post("v3/register", body).send().await.ok();
}

#[tokio::test]
async fn what_is_no_address_of_an_account_is_not_removed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let body = json!({ "medium": "email", "address": "no address" });
    let answer = alice.post("v3/account/3pid/delete", body).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    for verb in ["delete", "unbind"] {
        let answer = alice.post(&format!("v3/account/3pid/{verb}"), json!({})).await;
        assert_eq!(answer.outcome(), (400, "M_BAD_JSON"), "{verb}");
    }
}

#[tokio::test]
async fn t70_logins_do_not_tell_which_addresses_have_an_account() {
    let (server, mut mails) = server_with(|config| {
        let limits = &mut config.rate_limits;
        limits.enabled = true;
        limits.login_by_address = RateLimit::new(1000.0, 1000);
        limits.login_by_account = RateLimit::new(1000.0, 1000);
        limits.login_failed = RateLimit::new(0.001, 3);
    })
    .await;
    let alice = server.client("alice").await;
    with_address(&alice, &mut mails, "alice", "a@example.com").await;
    for address in ["a@example.com", "nobody@example.com"] {
        let identifier =
            json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
        let body =
            json!({ "type": "m.login.password", "identifier": identifier, "password": "wrong" });
        for _ in 0..3 {
            let answer = server.post("v3/login", body.clone()).send().await;
            assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{address}");
        }
        let answer = server.post("v3/login", body).send().await;
        assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"), "{address}");
    }
}

#[tokio::test]
async fn t74_the_page_of_a_reset_proves_the_address_of_an_account() {
    let (server, mut mails) = server().await;
    let alice = server.client("alice").await;
    with_address(&alice, &mut mails, "alice", "a@example.com").await;
    let reset = |body| server.post("v3/account/password", body).send();
    let challenge = reset(json!({ "new_password": "brand new" })).await;
    let session = challenge.body["session"].as_str().unwrap();
    let send = |form: String| {
        let call = server.call(Method::POST, "v3/auth/m.login.email.identity/fallback/web");
        call.header("content-type", "application/x-www-form-urlencoded").body(form).send()
    };
    let page = send(format!("session={session}&email=a%40example.com")).await;
    assert_eq!(page.status, 200);
    let hidden = |name: &str| {
        let start = format!("name=\"{name}\" value=\"");
        let after = page.text.split(&start).nth(1).unwrap();
        after.split('"').next().unwrap().to_owned()
    };
    confirm(&server, &mails.next().await.link().unwrap()).await;
    let form = format!("session={session}&sid={}&secret={}", hidden("sid"), hidden("secret"));
    assert_eq!(send(form).await.status, 200);
    let auth = json!({ "session": session });
    reset(json!({ "new_password": "brand new", "auth": auth })).await.ok();
    server.try_login("alice", "brand new").await.ok();
}
