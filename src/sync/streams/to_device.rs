//! Messages for the device that syncs, which are told until its client proves that it has them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use kv::Position;

pub(crate) use crate::encryption::to_device::PAGE_MAX;

use super::Step;
use crate::{
    encryption::to_device::{Page, page},
    error::ApiError,
    storage::schema::users::DeviceKey,
};

/// What was told of the messages with an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToldMessages {
    /// The position of the last one.
    pub(crate) last: Option<Position>,
    /// Whether more wait.
    pub(crate) has_more: bool,
}

impl From<&Page> for ToldMessages {
    fn from(page: &Page) -> Self {
        Self { last: page.last, has_more: page.has_more }
    }
}

/// The messages after those that the client has (`None`: all that wait).
pub(crate) fn read(
    step: &Step<'_>,
    after: Option<Position>,
    limit: usize,
) -> Result<Page, ApiError> {
    let Some(device_id) = &step.form.device_id else { return Ok(Page::default()) };
    let device = DeviceKey { user_id: step.user_id.to_string(), device_id: device_id.to_string() };
    page(step.reader, &device, (after, step.now), limit.min(PAGE_MAX))
}
