//! How a file is offered to whoever reads it: shown in place or saved, and under which name.
//!
//! Attack cases T106, T107.
//! <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content>

use http::HeaderValue;

/// The specification's list of what may be shown in place.
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Whether a type may be shown in place, however it is written.
pub fn is_inline(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    INLINE.contains(&essence.as_str())
}

/// The header `Content-Disposition`: a name goes in quotes where it is plain, and else encoded as
/// RFC 8187 has it.
pub fn disposition(is_inline: bool, filename: Option<&str>) -> HeaderValue {
    let kind = if is_inline { "inline" } else { "attachment" };
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\%".contains(&byte);
    let text = match filename {
        None | Some("") => kind.to_owned(),
        Some(name) if name.bytes().all(is_plain) => format!("{kind}; filename=\"{name}\""),
        Some(name) => format!("{kind}; filename*=UTF-8''{}", encoded(name)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

fn encoded(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t106_no_name_injects_a_header() {
        let cases = [
            (None, "attachment"),
            (Some("a.txt"), "attachment; filename=\"a.txt\""),
            (Some("a;b c.txt"), "attachment; filename=\"a;b c.txt\""),
            (Some("a\"b"), "attachment; filename*=UTF-8''a%22b"),
            (Some("a\r\nX: y"), "attachment; filename*=UTF-8''a%0D%0AX%3A%20y"),
            (Some("é🐔"), "attachment; filename*=UTF-8''%C3%A9%F0%9F%90%94"),
            (Some("\u{202e}gpj"), "attachment; filename*=UTF-8''%E2%80%AEgpj"),
        ];
        for (name, expected) in cases {
            assert_eq!(disposition(false, name), expected, "{name:?}");
        }
    }

    #[test]
    fn t107_types_are_compared_without_regard_to_case_and_parameters() {
        for harmless in ["image/png", "IMAGE/PNG", "text/plain; charset=utf-8"] {
            assert!(is_inline(harmless), "{harmless}");
        }
        for harmful in ["text/html", "TEXT/HTML;x", "image/svg+xml", "text/xml", "", "image/png,"] {
            assert!(!is_inline(harmful), "{harmful}");
        }
    }
}
