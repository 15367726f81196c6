//! Keeps what was asked and answered, for the check against the specification's OpenAPI files:
//! `tests/openapi`. Only where `CAUSERIE_EXCHANGES` names a folder.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process,
    sync::{Mutex, OnceLock},
};

use http::{
    Method,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE},
};
use serde_json::{Value, json};

use super::Answer;

static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();

/// The folder for exchanges, if they are wanted.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os("CAUSERIE_EXCHANGES").map(PathBuf::from)
}

/// Writes down one exchange, as a line of JSON. Of the request's body only the names of its fields.
pub(crate) fn exchange(method: &Method, path: &str, request: Option<&[u8]>, answer: &Answer) {
    let file = FILE.get_or_init(|| {
        let folder = folder()?;
        fs::create_dir_all(&folder).unwrap();
        let name = folder.join(format!("exchanges-{}.jsonl", process::id()));
        Some(Mutex::new(File::create(name).unwrap()))
    });
    let Some(file) = file else { return };
    let request: Option<Value> = request.and_then(|body| serde_json::from_slice(body).ok());
    let fields: Option<Vec<_>> =
        request.as_ref().and_then(Value::as_object).map(|body| body.keys().collect());
    let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let line = json!({
        "method": method.as_str(),
        "path": path,
        "fields": fields.unwrap_or_default(),
        "status": answer.status.as_u16(),
        "type": header(CONTENT_TYPE),
        "cors": header(ACCESS_CONTROL_ALLOW_ORIGIN),
        "body": answer.body,
    });
    writeln!(file.lock().unwrap(), "{line}").unwrap();
}
