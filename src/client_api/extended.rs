//! Requests whose filter holds more than ruma's type takes: see [`RelatedBy`].
//!
//! ruma drops what it does not know, so the query is read once more.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};

use crate::rooms::filter::RelatedBy;

/// A request, and the part of its filter that ruma does not take.
pub(super) struct WithRelated<R> {
    /// The request.
    pub(super) request: R,
    /// The part.
    pub(super) related: RelatedBy,
}

impl<R: Metadata> Metadata for WithRelated<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for WithRelated<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        let related = match parameters.find(|(name, _)| name == "filter") {
            Some((_, filter)) => serde_json::from_str(&filter)?,
            None => RelatedBy::default(),
        };
        Ok(Self { request: R::try_from_http_request_inner(request, path_args)?, related })
    }
}
