//! Whom people can ask about this server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>

use std::sync::Arc;

use ruma::api::client::discovery::discover_support::{self, Contact};

use super::ClientApi;
use crate::{config::SupportContact, error::ApiError, http::NoAuth};

/// `GET /.well-known/matrix/support`
/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>
pub(super) async fn discover_support(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: discover_support::Request,
) -> Result<discover_support::Response, ApiError> {
    let support = &app.config.support;
    if support.contacts.is_empty() && support.page.is_none() {
        return Err(ApiError::not_found("The server names nobody in its configuration"));
    }
    let contacts = support.contacts.iter().filter_map(contact).collect();
    let mut response = discover_support::Response::with_contacts(contacts);
    response.support_page = support.page.as_ref().map(ToString::to_string);
    Ok(response)
}

/// The configuration is refused where a contact has neither of both.
fn contact(contact: &SupportContact) -> Option<Contact> {
    let role = contact.role.as_str().into();
    match (&contact.matrix_id, &contact.email_address) {
        (Some(user_id), email_address) => {
            let mut shown = Contact::with_matrix_id(role, user_id.clone());
            shown.email_address.clone_from(email_address);
            Some(shown)
        }
        (None, Some(address)) => Some(Contact::with_email_address(role, address.clone())),
        (None, None) => None,
    }
}
