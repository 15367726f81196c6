//! Push rules.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules-api>

use std::sync::Arc;

use ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all,
    get_pushrules_global_scope, set_pushrule, set_pushrule_actions, set_pushrule_enabled,
};

use super::ClientApi;
use crate::{
    error::ApiError,
    http::Requester,
    users::{RulePlace, find_push_rule},
};

/// `GET /_matrix/client/v3/pushrules/`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules>
pub(super) async fn get_pushrules_all(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_pushrules_all::v3::Request,
) -> Result<get_pushrules_all::v3::Response, ApiError> {
    let rules = app.users.push_rules().get(&auth.user_id).await?;
    Ok(get_pushrules_all::v3::Response::new(rules))
}

/// `GET /_matrix/client/v3/pushrules/global/`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal>
pub(super) async fn get_pushrules_global_scope(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_pushrules_global_scope::v3::Request,
) -> Result<get_pushrules_global_scope::v3::Response, ApiError> {
    let rules = app.users.push_rules().get(&auth.user_id).await?;
    Ok(get_pushrules_global_scope::v3::Response::new(rules))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid>
pub(super) async fn get_pushrule(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_pushrule::v3::Request,
) -> Result<get_pushrule::v3::Response, ApiError> {
    let rules = app.users.push_rules().get(&auth.user_id).await?;
    let rule = find_push_rule(&rules, &request.kind, &request.rule_id)?;
    Ok(get_pushrule::v3::Response::new(rule.into()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid>
pub(super) async fn set_pushrule(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_pushrule::v3::Request,
) -> Result<set_pushrule::v3::Response, ApiError> {
    let place = RulePlace { before: request.before, after: request.after };
    app.users.push_rules().set(&auth.user_id, request.rule, &place).await?;
    Ok(set_pushrule::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid>
pub(super) async fn delete_pushrule(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_pushrule::v3::Request,
) -> Result<delete_pushrule::v3::Response, ApiError> {
    let rules = app.users.push_rules();
    rules.remove(&auth.user_id, request.kind, &request.rule_id).await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled>
pub(super) async fn get_pushrule_enabled(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_pushrule_enabled::v3::Request,
) -> Result<get_pushrule_enabled::v3::Response, ApiError> {
    let rules = app.users.push_rules().get(&auth.user_id).await?;
    let rule = find_push_rule(&rules, &request.kind, &request.rule_id)?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.enabled()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled>
pub(super) async fn set_pushrule_enabled(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response, ApiError> {
    let (kind, rule_id, enabled) = (request.kind, request.rule_id, request.enabled);
    app.users.push_rules().set_enabled(&auth.user_id, kind, &rule_id, enabled).await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions>
pub(super) async fn get_pushrule_actions(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_pushrule_actions::v3::Request,
) -> Result<get_pushrule_actions::v3::Response, ApiError> {
    let rules = app.users.push_rules().get(&auth.user_id).await?;
    let rule = find_push_rule(&rules, &request.kind, &request.rule_id)?;
    Ok(get_pushrule_actions::v3::Response::new(rule.actions().to_vec()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions>
pub(super) async fn set_pushrule_actions(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response, ApiError> {
    let (kind, rule_id, actions) = (request.kind, request.rule_id, request.actions);
    app.users.push_rules().set_actions(&auth.user_id, kind, &rule_id, actions).await?;
    Ok(set_pushrule_actions::v3::Response::new())
}
