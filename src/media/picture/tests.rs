//! Pictures of all four formats, and what is none.

use image::{Delay, Rgba};

use super::*;

fn picture(width: u32, height: u32, alpha: bool) -> DynamicImage {
    let at = |x: u32, y: u32| {
        Rgba([x.to_le_bytes()[0], y.to_le_bytes()[0], 90, if alpha { 100 } else { 255 }])
    };
    let picture = image::RgbaImage::from_fn(width, height, at);
    let picture = DynamicImage::ImageRgba8(picture);
    if alpha { picture } else { DynamicImage::ImageRgb8(picture.into_rgb8()) }
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn gif(width: u32, height: u32, frames: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    for _ in 0..frames {
        let frame = picture(width, height, false).into_rgba8();
        let delay = Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(Frame::from_parts(frame, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}

#[expect(clippy::unnecessary_wraps, reason = "thumbnails take an option")]
fn size(width: u32, height: u32, method: ThumbnailMethod) -> Option<ThumbnailSize> {
    Some(ThumbnailSize { width, height, method })
}

/// The type and the size of what is made.
fn made(source: &[u8], size: Option<ThumbnailSize>, moves: bool) -> (String, (u32, u32), Vec<u8>) {
    let mut out = Vec::new();
    thumbnail(source, size, moves, &mut out).unwrap();
    let end = out.iter().position(|byte| *byte == b'\n').unwrap();
    let content_type = String::from_utf8(out[..end].to_vec()).unwrap();
    let bytes = out[end + 1..].to_vec();
    let sniffed = sniff(&bytes).unwrap();
    assert_eq!(sniffed.content_type, content_type);
    (content_type, (sniffed.width, sniffed.height), bytes)
}

#[test]
fn sizes_are_as_the_specification_has_them() {
    // Scaled to fit, never larger.
    assert_eq!(scaled((1000, 500), (320, 240)), (320, 160));
    assert_eq!(scaled((500, 1000), (320, 240)), (120, 240));
    assert_eq!(scaled((100, 50), (320, 240)), (100, 50));
    assert_eq!(scaled((10_000, 1), (320, 240)), (320, 1));
    // The largest part of that shape.
    assert_eq!(cut((1000, 500), (96, 96)), (500, 500));
    assert_eq!(cut((500, 1000), (96, 96)), (500, 500));
    assert_eq!(cut((500, 1000), (200, 100)), (500, 250));
    assert_eq!(cut((1, 1000), (200, 100)), (1, 1));
}

#[test]
fn pictures_of_all_formats_become_smaller() {
    use ThumbnailMethod::{Crop, Scale};
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let source = encoded(&picture(900, 450, false), format);
        let sniffed = sniff(&source).unwrap();
        assert_eq!((sniffed.width, sniffed.height), (900, 450), "{format:?}");
        let (_, dimensions, _) = made(&source, size(320, 240, Scale), false);
        assert_eq!(dimensions, (320, 160), "{format:?}");
        let (_, dimensions, _) = made(&source, size(96, 96, Crop), false);
        assert_eq!(dimensions, (96, 96), "{format:?}");
    }
    let (content_type, _, _) =
        made(&encoded(&picture(400, 400, true), ImageFormat::Png), size(96, 96, Crop), false);
    assert_eq!(content_type, "image/png");
    let (content_type, _, _) =
        made(&encoded(&picture(400, 400, false), ImageFormat::Png), size(96, 96, Crop), false);
    assert_eq!(content_type, "image/jpeg");
}

#[test]
fn what_moves_goes_on_moving_where_that_is_wanted() {
    use ThumbnailMethod::Scale;
    let source = gif(200, 200, 5);
    let (content_type, dimensions, bytes) = made(&source, size(50, 50, Scale), true);
    assert_eq!((content_type.as_str(), dimensions), ("image/gif", (50, 50)));
    let decoder = GifDecoder::new(Cursor::new(&bytes)).unwrap();
    assert_eq!(decoder.into_frames().collect_frames().unwrap().len(), 5);
    let (content_type, _, _) = made(&source, size(50, 50, Scale), false);
    assert_ne!(content_type, "image/gif");
    let (content_type, dimensions, _) = made(&source, None, false);
    assert_ne!(content_type, "image/gif");
    assert_eq!(dimensions, (200, 200));
}

#[test]
fn t108_endless_animations_stand_still() {
    let source = gif(2, 2, 1_500);
    let (content_type, _, _) = made(&source, size(1, 1, ThumbnailMethod::Scale), true);
    assert_ne!(content_type, "image/gif");
}

#[test]
fn t108_only_four_formats_are_read() {
    let wanted = size(32, 32, ThumbnailMethod::Crop);
    let fails = |source: &[u8]| thumbnail(source, wanted, true, &mut Vec::new()).is_err();
    let others: [&[u8]; 9] = [
        b"",
        b"II*\0\x08\0\0\0",
        b"BM\x3a\0\0\0\0\0\0\0",
        b"8BPS\0\x01",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a",
        b"\xff\xd8\xff\xe0\0\0\0\0\0\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
    ];
    for source in others {
        assert!(fails(source), "{source:?}");
    }
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let source = encoded(&picture(300, 300, false), format);
        let mut cut = source.clone();
        cut.truncate(60);
        assert!(fails(&cut), "{format:?}");
    }
    // 65,535 by 65,535 pixels by its header.
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xff\xff\0\0\xff\xff".to_vec();
    bomb.extend_from_slice(&[8, 6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sniff(&bomb).map(|it| (it.width, it.height)), Some((65_535, 65_535)));
    assert!(fails(&bomb));
}
