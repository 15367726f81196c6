//! What the query of a request for a file says, of clients and of servers.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

use super::{Wait, Wanted};
use crate::{
    config::{ThumbnailMethod, ThumbnailSize},
    error::ApiError,
    http::parameter,
};

impl Wait {
    /// How long to wait, as `timeout_ms` says.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when it is no number.
    pub fn from_query(query: &str) -> Result<Self, ApiError> {
        match parameter(query, "timeout_ms").map(|text| text.parse()) {
            None => Ok(Self::default()),
            Some(Ok(milliseconds)) => Ok(Self::of_milliseconds(milliseconds)),
            Some(Err(_)) => Err(ApiError::invalid_param("`timeout_ms` is no number")),
        }
    }
}

impl Wanted {
    /// Which thumbnail is wanted, as `width`, `height`, `method` and `animated` say.
    ///
    /// # Errors
    /// `M_MISSING_PARAM`, `M_UNKNOWN` when one cannot be read.
    pub fn from_query(query: &str) -> Result<Self, ApiError> {
        let pixels = |name: &'static str| {
            let text = parameter(query, name).ok_or_else(|| {
                ApiError::missing_param(format!("The parameter `{name}` is missing"))
            })?;
            let side = text.parse::<u32>().ok().filter(|side| *side > 0);
            side.ok_or_else(|| ApiError::unknown(format!("`{name}` is no number of pixels")))
        };
        let method = match parameter(query, "method").as_deref() {
            None | Some("scale") => ThumbnailMethod::Scale,
            Some("crop") => ThumbnailMethod::Crop,
            Some(_) => return Err(ApiError::unknown("`method` is `crop` or `scale`")),
        };
        let size = ThumbnailSize { width: pixels("width")?, height: pixels("height")?, method };
        let animated = parameter(query, "animated").is_some_and(|animated| animated == "true");
        Ok(Self { size, animated })
    }
}
