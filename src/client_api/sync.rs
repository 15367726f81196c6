//! `GET /sync`.
//!
//! The query is read here and not by ruma, which drops the parameter that asks for MSC4222 by its
//! unstable name; the answer is written by [`crate::sync::v3`].

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use ruma::api::client::filter::FilterDefinition;

use super::{ClientApi, raw::written_json};
use crate::{
    ephemeral::PresenceState,
    error::ApiError,
    http::{RawRequest, Requester},
    sync::v3::{FilterChoice, Request, StateForm},
};

/// The endpoint's paths.
pub(super) const PATHS: &[&str] = &["/_matrix/client/r0/sync", "/_matrix/client/v3/sync"];

/// The longest filter in a request.
const FILTER_BYTES_MAX: usize = 64 * 1024;

/// The parameters of the query.
#[derive(Debug, Default)]
struct Query {
    filter: Option<String>,
    since: Option<String>,
    full_state: bool,
    timeout_ms: u64,
    state_form: StateForm,
    presence: Option<PresenceState>,
}

/// `GET /_matrix/client/v3/sync`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>
///
/// `timeout` is at most 90 seconds. MSC4222 is known by its unstable name too.
///
/// No `async` function: that would hold the space of its arguments while it waits.
#[expect(clippy::needless_pass_by_value, reason = "handlers get their request by value")]
pub(super) fn sync_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> impl Future<Output = Result<Response, ApiError>> + Send + 'static {
    let request = asked(auth, &request);
    async move { Ok(written_json(app.sync.v3(request?).await?)) }
}

fn asked(auth: Requester, request: &RawRequest) -> Result<Box<Request>, ApiError> {
    let query = Query::parse(request.head.uri.query().unwrap_or_default())?;
    Ok(Box::new(Request {
        user_id: auth.user_id,
        device_id: auth.device_id,
        session: auth.session,
        since: query.since,
        filter: query.filter.map(choose_filter).transpose()?,
        timeout: Duration::from_millis(query.timeout_ms),
        full_state: query.full_state,
        state_form: query.state_form,
        presence: query.presence,
    }))
}

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "filter" => query.filter = Some(value.into_owned()),
                "since" => query.since = Some(value.into_owned()),
                "full_state" => query.full_state = flag(&name, &value)?,
                "timeout" => {
                    query.timeout_ms = value.parse().map_err(|_| {
                        ApiError::invalid_param("timeout is not a number of milliseconds")
                    })?;
                }
                "set_presence" => {
                    let state = PresenceState::from_name(&value);
                    query.presence = Some(state.ok_or_else(|| {
                        ApiError::invalid_param("set_presence is no state of presence")
                    })?);
                }
                "use_state_after" if flag(&name, &value)? => {
                    query.state_form = StateForm::After;
                }
                "org.matrix.msc4222.use_state_after"
                    if flag(&name, &value)? && query.state_form == StateForm::Before =>
                {
                    query.state_form = StateForm::UnstableAfter;
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, ApiError> {
    value.parse().map_err(|_| ApiError::invalid_param(format!("{name} is not true or false")))
}

fn choose_filter(filter: String) -> Result<FilterChoice, ApiError> {
    if !filter.starts_with('{') {
        return Ok(FilterChoice::Stored(filter));
    }
    if filter.len() > FILTER_BYTES_MAX {
        return Err(ApiError::too_large("The filter is too large"));
    }
    let filter: FilterDefinition = serde_json::from_str(&filter)
        .map_err(|error| ApiError::invalid_param(format!("The filter is not valid: {error}")))?;
    Ok(FilterChoice::Inline(Box::new(filter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_read() {
        let query = "filter=1&since=sa_1&full_state=true&set_presence=offline&timeout=30000\
            &org.matrix.msc4222.use_state_after=true&unknown=1";
        let query = Query::parse(query).unwrap();
        assert_eq!(query.filter.as_deref(), Some("1"));
        assert_eq!(query.since.as_deref(), Some("sa_1"));
        assert!(query.full_state);
        assert_eq!(query.state_form, StateForm::UnstableAfter);
        assert_eq!(query.timeout_ms, 30_000);
        assert_eq!(query.presence, Some(PresenceState::Offline));
        let both = "use_state_after=true&org.matrix.msc4222.use_state_after=true";
        assert_eq!(Query::parse(both).unwrap().state_form, StateForm::After);
        assert_eq!(Query::parse("timeout=1000000000000").unwrap().timeout_ms, 1_000_000_000_000);
        for wrong in
            ["set_presence=here", "timeout=x", "timeout=-1", "full_state=1", "use_state_after="]
        {
            assert_eq!(Query::parse(wrong).unwrap_err().errcode, "M_INVALID_PARAM", "{wrong}");
        }
        assert_eq!(Query::parse("").unwrap().state_form, StateForm::Before);
    }

    #[test]
    fn t89_a_filter_is_an_id_or_json() {
        assert!(matches!(choose_filter("0".to_owned()), Ok(FilterChoice::Stored(id)) if id == "0"));
        assert!(matches!(choose_filter("{}".to_owned()), Ok(FilterChoice::Inline(_))));
        for (filter, errcode) in [
            ("{".to_owned(), "M_INVALID_PARAM"),
            (r#"{"room":{"timeline":{"limit":-1}}}"#.to_owned(), "M_INVALID_PARAM"),
            (r#"{"room":{"timeline":{"limit":"x"}}}"#.to_owned(), "M_INVALID_PARAM"),
            (format!("{{\"a\":\"{}\"}}", "x".repeat(65 * 1024)), "M_TOO_LARGE"),
        ] {
            assert_eq!(choose_filter(filter).unwrap_err().errcode, errcode);
        }
    }
}
