//! Pictures: what their first bytes say, and how they become thumbnails.
//!
//! [`sniff`] runs in the server and only looks at headers. [`thumbnail`] decodes what strangers
//! made; it runs in a process of its own with limits (`cli/thumbnail.rs`, started by `worker.rs`).
//! Four formats are decoded and no other: PNG, JPEG, GIF, WebP.
//!
//! Attack case T108.

use std::io::{self, Cursor, Write};

use image::{
    AnimationDecoder, DynamicImage, Frame, GenericImageView, ImageDecoder, ImageError, ImageFormat,
    ImageReader, Limits,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        jpeg::JpegEncoder,
        png::PngDecoder,
        webp::WebPDecoder,
    },
    imageops::FilterType,
    metadata::Orientation,
};

use crate::config::{ThumbnailMethod, ThumbnailSize};

/// The most pixels of a picture that is decoded.
pub const PIXELS_MAX: u64 = 32_000_000;
/// The most pixels of one frame of an animation, and of all its frames together.
const FRAME_PIXELS_MAX: u64 = 4_000_000;
const ANIMATION_PIXELS_MAX: u64 = 200_000_000;
/// The most frames of an animation.
const FRAMES_MAX: u64 = 1_000;
/// What a decoder may take for itself, in bytes.
const DECODER_BYTES_MAX: u64 = 192 << 20;
/// How well thumbnails without transparency are kept, of 100.
const JPEG_QUALITY: u8 = 82;
/// How quickly the colors of a frame are chosen, of 30.
const GIF_SPEED: i32 = 20;

/// What a picture is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sniffed {
    /// Its type.
    pub content_type: &'static str,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Whether it may move.
    pub may_move: bool,
}

/// What a picture's first bytes say; `None` when they are not of one of the four formats.
pub fn sniff(head: &[u8]) -> Option<Sniffed> {
    let sniffed = |content_type, (width, height): (u32, u32), may_move| {
        (width > 0 && height > 0).then_some(Sniffed { content_type, width, height, may_move })
    };
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        let size = (be32(head, 16)?, be32(head, 20)?);
        return sniffed("image/png", size, is_animated_png(head));
    }
    if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
        let size = (u32::from(le16(head, 6)?), u32::from(le16(head, 8)?));
        return sniffed("image/gif", size, true);
    }
    if head.starts_with(b"\xff\xd8\xff") {
        return sniffed("image/jpeg", jpeg_size(head)?, false);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        let (size, may_move) = webp_size(head)?;
        return sniffed("image/webp", size, may_move);
    }
    None
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    let [low, middle, high] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}

/// Whether the chunk that announces an animation stands before the picture.
fn is_animated_png(head: &[u8]) -> bool {
    let mut at = 8_usize;
    while let (Some(length), Some(name)) = (be32(head, at), head.get(at + 4..at + 8)) {
        match name {
            b"acTL" => return true,
            b"IDAT" => return false,
            _ => at = at.saturating_add(12).saturating_add(length as usize),
        }
    }
    false
}

/// The size in the first frame header.
fn jpeg_size(head: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2_usize;
    loop {
        if *head.get(at)? != 0xff {
            return None;
        }
        let marker = *head.get(at + 1)?;
        match marker {
            // Padding.
            0xff => at += 1,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((be16(head, at + 7)?.into(), be16(head, at + 5)?.into()));
            }
            0xd8 | 0x01 | 0xd0..=0xd7 => at += 2,
            _ => at = at.checked_add(2)?.checked_add(usize::from(be16(head, at + 2)?))?,
        }
    }
}

fn webp_size(head: &[u8]) -> Option<((u32, u32), bool)> {
    match head.get(12..16)? {
        b"VP8X" => {
            let may_move = *head.get(20)? & 2 != 0;
            Some(((le24(head, 24)? + 1, le24(head, 27)? + 1), may_move))
        }
        b"VP8 " => {
            let size = |at| Some(u32::from(le16(head, at)? & 0x3fff));
            Some(((size(26)?, size(28)?), false))
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(*head.get(21..)?.first_chunk()?);
            Some((((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1), false))
        }
        _ => None,
    }
}

/// Writes a thumbnail: its type on a line, then its bytes. `None` for the size: as it is, but still.
pub fn thumbnail(
    source: &[u8],
    size: Option<ThumbnailSize>,
    moves: bool,
    out: &mut impl Write,
) -> Result<(), ImageError> {
    let sniffed = sniff(source).ok_or_else(no_picture)?;
    let pixels = u64::from(sniffed.width) * u64::from(sniffed.height);
    if pixels > PIXELS_MAX {
        return Err(no_picture());
    }
    if moves
        && sniffed.may_move
        && pixels <= FRAME_PIXELS_MAX
        && let Some(bytes) = moving(source, sniffed, size)?
    {
        out.write_all(b"image/gif\n")?;
        return Ok(out.write_all(&bytes)?);
    }
    let picture = still(source, sniffed)?;
    let picture = match size {
        Some(size) => resized(&picture, size),
        None => picture,
    };
    let mut bytes = Vec::new();
    let content_type = if is_transparent(&picture) {
        DynamicImage::ImageRgba8(picture.into_rgba8())
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
        "image/png"
    } else {
        let picture = DynamicImage::ImageRgb8(picture.into_rgb8());
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(&picture)?;
        "image/jpeg"
    };
    writeln!(out, "{content_type}")?;
    Ok(out.write_all(&bytes)?)
}

/// Whether anything shows through; many pictures only could.
fn is_transparent(picture: &DynamicImage) -> bool {
    picture.color().has_alpha() && picture.pixels().any(|(_, _, color)| color.0[3] < u8::MAX)
}

fn no_picture() -> ImageError {
    ImageError::IoError(io::Error::from(io::ErrorKind::InvalidData))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    limits
}

/// The picture, or the first frame of it, upright.
fn still(source: &[u8], sniffed: Sniffed) -> Result<DynamicImage, ImageError> {
    let format = match sniffed.content_type {
        "image/png" => ImageFormat::Png,
        "image/gif" => ImageFormat::Gif,
        "image/jpeg" => ImageFormat::Jpeg,
        _ => ImageFormat::WebP,
    };
    let mut reader = ImageReader::with_format(Cursor::new(source), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(no_picture());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The frames as a GIF; `None` when there is one alone, or more than is bearable.
fn moving(
    source: &[u8],
    sniffed: Sniffed,
    size: Option<ThumbnailSize>,
) -> Result<Option<Vec<u8>>, ImageError> {
    let cursor = Cursor::new(source);
    let frames = match sniffed.content_type {
        "image/gif" => {
            let mut decoder = GifDecoder::new(cursor)?;
            decoder.set_limits(limits())?;
            decoder.into_frames()
        }
        "image/png" => PngDecoder::with_limits(cursor, limits())?.apng()?.into_frames(),
        _ => {
            let mut decoder = WebPDecoder::new(cursor)?;
            decoder.set_limits(limits())?;
            decoder.into_frames()
        }
    };
    let mut bytes = Vec::new();
    let (mut count, mut pixels) = (0, 0);
    {
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, GIF_SPEED);
        encoder.set_repeat(Repeat::Infinite)?;
        for frame in frames {
            let frame = frame?;
            let (width, height) = frame.buffer().dimensions();
            count += 1;
            pixels += u64::from(width) * u64::from(height);
            if count > FRAMES_MAX || pixels > ANIMATION_PIXELS_MAX {
                return Ok(None);
            }
            let delay = frame.delay();
            let picture = DynamicImage::ImageRgba8(frame.into_buffer());
            let picture = match size {
                Some(size) => resized(&picture, size),
                None => picture,
            };
            encoder.encode_frame(Frame::from_parts(picture.into_rgba8(), 0, 0, delay))?;
        }
    }
    Ok((count > 1).then_some(bytes))
}

/// Never larger than it was.
fn resized(picture: &DynamicImage, size: ThumbnailSize) -> DynamicImage {
    let (width, height) = picture.dimensions();
    match size.method {
        ThumbnailMethod::Scale => {
            let (width, height) = scaled((width, height), (size.width, size.height));
            shrunk(picture, width, height)
        }
        ThumbnailMethod::Crop => {
            let (cut_width, cut_height) = cut((width, height), (size.width, size.height));
            let (left, top) = ((width - cut_width) / 2, (height - cut_height) / 2);
            let picture = picture.crop_imm(left, top, cut_width, cut_height);
            shrunk(&picture, size.width.min(cut_width), size.height.min(cut_height))
        }
    }
}

/// The size of a picture that fits in a frame.
fn scaled((width, height): (u32, u32), (wide, high): (u32, u32)) -> (u32, u32) {
    if width <= wide && height <= high {
        return (width, height);
    }
    let of = |length: u32, most: u32, other: u32| {
        let scaled = u64::from(length) * u64::from(most) / u64::from(other.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    // The side that is further beyond decides.
    if u64::from(width) * u64::from(high) >= u64::from(height) * u64::from(wide) {
        (wide.max(1), of(height, wide, width).min(high.max(1)))
    } else {
        (of(width, high, height).min(wide.max(1)), high.max(1))
    }
}

/// The largest part of a picture that has the shape of a frame.
fn cut((width, height): (u32, u32), (wide, high): (u32, u32)) -> (u32, u32) {
    let part = |length: u32, one: u32, other: u32| {
        let length = u64::from(length) * u64::from(one) / u64::from(other.max(1));
        u32::try_from(length).unwrap_or(u32::MAX).max(1)
    };
    if u64::from(width) * u64::from(high) > u64::from(height) * u64::from(wide) {
        (part(height, wide, high).min(width), height)
    } else {
        (width, part(width, high, wide).min(height))
    }
}

/// First quickly to twice the size, then well: the good way needs much memory for large pictures.
fn shrunk(picture: &DynamicImage, width: u32, height: u32) -> DynamicImage {
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }
    let near = (width.saturating_mul(2), height.saturating_mul(2));
    if picture.width() > near.0 && picture.height() > near.1 {
        return picture.thumbnail_exact(near.0, near.1).resize_exact(
            width,
            height,
            FilterType::Triangle,
        );
    }
    picture.resize_exact(width, height, FilterType::Triangle)
}

#[cfg(test)]
mod tests;
