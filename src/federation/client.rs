//! Requests to other servers, signed.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use crate::egress::EgressError;

/// Makes requests to other servers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Federation(Arc<()>);

/// Why another server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The server did not answer lately, and is not asked again so soon.
    #[error("the server did not answer lately and is not asked again before {0:?} have passed")]
    BackingOff(Duration),
    /// Nothing came back, or not all of it.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It answered with an error.
    #[error("the server answered {status} {errcode}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The Matrix error code, empty where it gave none.
        errcode: String,
    },
    /// What it answered is not what the specification says.
    #[error("the answer of the server cannot be read: {0}")]
    BadAnswer(&'static str),
}
