//! Searching for events.
//!
//! The body is read here and not by ruma, which does not tell a search without surroundings from
//! one with the usual number of them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

use std::sync::Arc;

use axum::response::Response;
use ruma::{UInt, api::client::filter::RoomEventFilter};
use serde::{Deserialize, Serialize};

use super::{
    ClientApi,
    raw::{json, parameter},
    read_routes::{asker, bounded},
};
use crate::{
    error::ApiError,
    http::{
        BODY_BYTES_MAX, BODY_IDLE_MAX, JsonRules, RawRequest, Requester, check_json,
        check_json_headers, read_body,
    },
    search::{ContextSize, Found, GroupBy, Kind, Order, Request},
};

/// The endpoint's paths.
pub(super) const PATHS: &[&str] = &["/_matrix/client/r0/search", "/_matrix/client/v3/search"];

/// How many events a result's surroundings have on each side when nothing else is said.
const CONTEXT_DEFAULT: u32 = 5;

#[derive(Deserialize)]
struct SearchBody {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Deserialize)]
struct Criteria {
    search_term: String,
    keys: Option<Vec<String>>,
    #[serde(default)]
    filter: RoomEventFilter,
    order_by: Option<String>,
    event_context: Option<EventContext>,
    #[serde(default)]
    include_state: Option<bool>,
    groupings: Option<Groupings>,
}

#[derive(Deserialize)]
struct EventContext {
    before_limit: Option<UInt>,
    after_limit: Option<UInt>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Deserialize)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: Option<String>,
}

#[derive(Default, Serialize)]
struct SearchAnswer {
    search_categories: ResultCategories,
}

#[derive(Default, Serialize)]
struct ResultCategories {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<Found>,
}

/// `POST /_matrix/client/v3/search`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search>
///
/// At most 100 results a page, and `limits.context_events_max` events around each.
pub(super) async fn search_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    app.limits_of(&auth).searches.check(&auth.user_id)?;
    check_json_headers(&request.head.headers)?;
    let query = request.head.uri.query().unwrap_or_default();
    let next_batch = parameter(query, "next_batch");
    let body = read_body(request.body, BODY_BYTES_MAX, BODY_IDLE_MAX).await?;
    check_json(&body, JsonRules::REQUEST)?;
    let body: SearchBody = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_json(format!("The search is not valid: {error}")))?;
    let mut answer = SearchAnswer::default();
    if let Some(criteria) = body.search_categories.room_events {
        let ignored = app.users.ignored(&auth.user_id).await?;
        let context_max = app.config.limits.context_events_max;
        let request =
            Request { ignored, next_batch, ..criteria.into_request(asker(auth), context_max)? };
        answer.search_categories.room_events = Some(app.search.search(request).await?);
    }
    json(&answer)
}

impl Criteria {
    fn into_request(
        self,
        asker: crate::rooms::history::Asker,
        context_max: usize,
    ) -> Result<Request, ApiError> {
        let keys = self.keys.unwrap_or_default();
        Ok(Request {
            asker,
            ignored: std::collections::HashSet::new(),
            term: self.search_term,
            kinds: keys.iter().map(|key| kind(key)).collect::<Result<_, _>>()?,
            filter: self.filter,
            order: match self.order_by.as_deref() {
                None | Some("rank") => Order::Rank,
                Some("recent") => Order::Recent,
                Some(_) => {
                    return Err(ApiError::invalid_param("`order_by` is `rank` or `recent`"));
                }
            },
            context: self.event_context.map(|context| context.size(context_max)),
            state: self.include_state.unwrap_or_default(),
            groups: groups(self.groupings)?,
            next_batch: None,
        })
    }
}

impl EventContext {
    /// Within what `/context` shows, both sides together.
    fn size(&self, events_max: usize) -> ContextSize {
        let before = bounded(self.before_limit.unwrap_or(CONTEXT_DEFAULT.into()), 0, events_max);
        let after = bounded(self.after_limit.unwrap_or(CONTEXT_DEFAULT.into()), 0, events_max);
        let before = before.min(events_max - after.min(events_max / 2));
        let after = after.min(events_max - before);
        ContextSize { before, after, profiles: self.include_profile }
    }
}

fn kind(key: &str) -> Result<Kind, ApiError> {
    match key {
        "content.body" => Ok(Kind::Message),
        "content.name" => Ok(Kind::Name),
        "content.topic" => Ok(Kind::Topic),
        _ => Err(ApiError::invalid_param(
            "`keys` are `content.body`, `content.name` and `content.topic`",
        )),
    }
}

fn groups(groupings: Option<Groupings>) -> Result<Vec<GroupBy>, ApiError> {
    let mut groups = Vec::new();
    for grouping in groupings.into_iter().flat_map(|groupings| groupings.group_by) {
        let group = match grouping.key.as_deref() {
            Some("room_id") => GroupBy::RoomId,
            Some("sender") => GroupBy::Sender,
            _ => return Err(ApiError::invalid_param("Groups are by `room_id` or by `sender`")),
        };
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t89_surroundings_keep_to_the_limit_of_context() {
        for (wanted, expected) in [
            ((3, 4), (3, 4)),
            ((1_000_000, 0), (100, 0)),
            ((0, 1_000_000), (0, 100)),
            ((1_000_000, 1_000_000), (50, 50)),
            ((80, 30), (70, 30)),
        ] {
            let limit = |limit: u32| Some(UInt::from(limit));
            let (before_limit, after_limit) = (limit(wanted.0), limit(wanted.1));
            let context = EventContext { before_limit, after_limit, include_profile: false };
            let size = context.size(100);
            assert_eq!((size.before, size.after), expected, "{wanted:?}");
        }
    }
}
