//! Requests that say more than ruma's types take.
//!
//! ruma drops what it does not know, so what is missing is read once more.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};

use crate::rooms::filter::RelatedBy;

/// A request, and what ruma does not take of it.
#[derive(Debug)]
pub struct Extended<R, M> {
    /// The request.
    pub(super) request: R,
    /// What else it says.
    pub(super) more: M,
}

/// What is read of a request besides what ruma reads.
pub trait More: Sized {
    /// Reads it.
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError>;
}

impl<R: Metadata, M> Metadata for Extended<R, M> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, M: More> IncomingRequest for Extended<R, M> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_arguments: &[&str],
    ) -> Result<Self, DeserializationError> {
        let more = M::read(&request)?;
        Ok(Self { request: R::try_from_http_request_inner(request, path_arguments)?, more })
    }
}

/// The part of a filter that is about related events.
impl More for RelatedBy {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        match parameters.find(|(name, _)| name == "filter") {
            Some((_, filter)) => Ok(serde_json::from_str(&filter)?),
            None => Ok(Self::default()),
        }
    }
}
