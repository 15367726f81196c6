//! Thumbnails, made by the program itself in processes of their own.

use std::io::Cursor;

use causerie::{config::RateLimit, media::picture::sniff};
use image::{DynamicImage, Frame, ImageFormat, Rgba, RgbaImage, codecs::gif::GifEncoder};

use crate::harness::{Answer, Client, TestServer};

fn picture(width: u32, height: u32) -> DynamicImage {
    let at = |x: u32, y: u32| Rgba([x.to_le_bytes()[0], y.to_le_bytes()[0], 9, 255]);
    DynamicImage::ImageRgb8(
        DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, at)).into_rgb8(),
    )
}

pub(crate) fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture(width, height).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn gif(width: u32, height: u32, frames: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    for _ in 0..frames {
        encoder.encode_frame(Frame::new(picture(width, height).into_rgba8())).unwrap();
    }
    drop(encoder);
    bytes
}

async fn thumbnail(client: &Client<'_>, place: &str, query: &str) -> Answer {
    client.get(&format!("v1/media/thumbnail/{place}?{query}")).await
}

/// The type in the head, which must be that of the bytes, and the size.
pub(crate) fn shape(answer: &Answer) -> (&str, u32, u32) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let sniffed = sniff(&answer.bytes).unwrap();
    let content_type = answer.headers.get("content-type").unwrap().to_str().unwrap();
    assert_eq!(content_type, sniffed.content_type);
    assert!(
        answer.headers.get("content-disposition").unwrap().to_str().unwrap().starts_with("inline")
    );
    (content_type, sniffed.width, sniffed.height)
}

#[tokio::test]
async fn pictures_have_thumbnails() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif] {
        // Whatever the client said that it is.
        let place = alice.upload("text/html", encoded(1000, 500, format)).await;
        let answer = thumbnail(&alice, &place, "width=64&height=64&method=crop").await;
        let (_, width, height) = shape(&answer);
        assert_eq!((width, height), (96, 96));
        let answer = thumbnail(&alice, &place, "width=300&height=200").await;
        let (_, width, height) = shape(&answer);
        assert_eq!((width, height), (320, 160));
        let etag = answer.headers.get("etag").unwrap();
        let again = thumbnail(&alice, &place, "width=300&height=200").await;
        assert_eq!((again.headers.get("etag").unwrap(), &again.bytes), (etag, &answer.bytes));
    }
    // What is small enough is its own thumbnail.
    let small = encoded(30, 20, ImageFormat::Png);
    let place = alice.upload("image/png", small.clone()).await;
    let answer = thumbnail(&alice, &place, "width=32&height=32&method=crop").await;
    assert_eq!(answer.bytes, small);
    let answer = thumbnail(&alice, &place, "width=5000&height=5000&method=scale").await;
    assert_eq!(answer.bytes, small);
}

#[tokio::test]
async fn what_moves_may_go_on_moving() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let source = gif(500, 500, 3);
    let place = alice.upload("image/gif", source.clone()).await;
    let of = |query: &'static str| thumbnail(&alice, &place, query);
    assert_eq!(shape(&of("width=96&height=96&method=crop").await), ("image/jpeg", 96, 96));
    let moving = of("width=96&height=96&method=crop&animated=true").await;
    assert_eq!(shape(&moving), ("image/gif", 96, 96));
    let large = "width=5000&height=5000&method=scale";
    assert_eq!(shape(&of(large).await), ("image/jpeg", 500, 500));
    let answer = of("width=5000&height=5000&method=scale&animated=true").await;
    assert_eq!(answer.bytes, source);
}

#[tokio::test]
async fn any_size_is_made_where_that_is_set() {
    let server = TestServer::with(|config| config.media.dynamic_thumbnails = true).await;
    let alice = server.client("alice").await;
    let place = alice.upload("image/png", encoded(400, 200, ImageFormat::Png)).await;
    let answer = thumbnail(&alice, &place, "width=123&height=45&method=crop").await;
    assert_eq!(shape(&answer), ("image/jpeg", 123, 45));
}

#[tokio::test]
async fn thumbnails_go_with_their_file() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = alice.upload("image/png", encoded(400, 200, ImageFormat::Png)).await;
    thumbnail(&alice, &place, "width=32&height=32&method=crop").await.ok();
    let media = &server.server.media;
    media.delete_of_user(&alice.user.user_id).await.unwrap();
    let left = walk(server.media_folder.path());
    assert_eq!(left, 0);
    let answer = thumbnail(&alice, &place, "width=32&height=32&method=crop").await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn a_thumbnail_needs_a_size() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = alice.upload("image/png", encoded(40, 20, ImageFormat::Png)).await;
    let of = |query: &'static str| thumbnail(&alice, &place, query);
    assert_eq!(of("width=10").await.outcome(), (400, "M_MISSING_PARAM"));
    assert_eq!(of("width=10&height=-1").await.outcome(), (400, "M_UNKNOWN"));
    assert_eq!(of("width=10&height=0").await.outcome(), (400, "M_UNKNOWN"));
    assert_eq!(of("width=10&height=x").await.outcome(), (400, "M_UNKNOWN"));
    assert_eq!(of("width=1&height=1&method=stretch").await.outcome(), (400, "M_UNKNOWN"));
}

#[tokio::test]
async fn what_is_made_is_limited_and_what_was_made_is_not() {
    let server = TestServer::with(|config| {
        config.media.dynamic_thumbnails = true;
        config.rate_limits.enabled = true;
        config.rate_limits.thumbnails = RateLimit { per_second: 0.001, burst: 2 };
    })
    .await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let place = alice.upload("image/png", encoded(400, 200, ImageFormat::Png)).await;
    let sizes = ["width=20&height=20", "width=21&height=21", "width=22&height=22"];
    for size in &sizes[..2] {
        thumbnail(&alice, &place, size).await.ok();
    }
    assert_eq!(thumbnail(&alice, &place, sizes[2]).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    thumbnail(&alice, &place, sizes[0]).await.ok();
    thumbnail(&bob, &place, sizes[2]).await.ok();
    thumbnail(&alice, &place, sizes[2]).await.ok();
}

/// The header of a PNG of this size and nothing more.
fn png_head(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend_from_slice(&width.to_be_bytes());
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&[8, 6, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[tokio::test]
async fn t108_bombs_do_not_go_off() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let mut jpeg = encoded(900, 900, ImageFormat::Jpeg);
    let middle = jpeg.len() / 2;
    jpeg[200..240].fill(0xff);
    jpeg.truncate(middle);
    let mut polyglot = encoded(900, 900, ImageFormat::Png);
    polyglot.extend_from_slice(b"<html><script>alert(1)</script>");
    let sources: [(&str, Vec<u8>); 9] = [
        ("truncated PNG", encoded(900, 900, ImageFormat::Png)[..900].to_vec()),
        ("header of a PNG", png_head(5_000, 5_000)),
        ("bad JPEG", jpeg),
        ("TIFF", b"II*\0\x08\0\0\0".to_vec()),
        ("BMP", b"BM\x3a\0\0\0".to_vec()),
        ("PSD", b"8BPS\0\x01".to_vec()),
        ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0".to_vec()),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' width='900' height='900'/>".to_vec()),
        ("nothing", Vec::new()),
    ];
    let query = "width=32&height=32&method=crop&animated=true";
    for (name, source) in sources {
        let place = alice.upload("image/png", source).await;
        let answer = thumbnail(&alice, &place, query).await;
        // Decoders may make the best of a damaged JPEG.
        if name == "bad JPEG" && answer.status == 200 {
            continue;
        }
        assert_eq!(answer.outcome(), (400, "M_UNKNOWN"), "{name}");
        // It is remembered.
        let answer = thumbnail(&alice, &place, query).await;
        assert_eq!(answer.outcome(), (400, "M_UNKNOWN"), "{name}");
    }
    let place = alice.upload("image/png", png_head(65_535, 65_535)).await;
    let answer = thumbnail(&alice, &place, query).await;
    assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
    let place = alice.upload("image/png", polyglot).await;
    assert_eq!(shape(&thumbnail(&alice, &place, query).await), ("image/jpeg", 32, 32));
    let place = alice.upload("image/gif", gif(40, 40, 20_000)).await;
    let answer = thumbnail(&alice, &place, query).await;
    assert!(answer.status == 400 || shape(&answer).0 == "image/jpeg");
}

#[tokio::test]
async fn t108_a_process_that_takes_too_much_is_ended() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    // Within the pixels that are allowed, but of 16 bits for each color: 240 MB.
    let mut bytes = Vec::new();
    let picture = image::ImageBuffer::<image::Rgba<u16>, Vec<u16>>::new(6_000, 5_000);
    DynamicImage::ImageRgba16(picture)
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .unwrap();
    let place = alice.upload("image/png", bytes).await;
    let answer = thumbnail(&alice, &place, "width=32&height=32&method=crop").await;
    assert_eq!(answer.outcome(), (400, "M_UNKNOWN"));
    // A large one of the usual kind is within the limits.
    let place = alice.upload("image/jpeg", encoded(6_000, 5_000, ImageFormat::Jpeg)).await;
    let answer = thumbnail(&alice, &place, "width=800&height=600").await;
    assert_eq!(shape(&answer), ("image/jpeg", 720, 600));
}

#[tokio::test]
async fn old_clients_get_thumbnails_without_a_token() {
    let server = TestServer::with(|config| config.media.legacy_unauthenticated = true).await;
    let alice = server.client("alice").await;
    let place = alice.upload("image/png", encoded(100, 50, ImageFormat::Png)).await;
    let path = format!("/_matrix/media/v3/thumbnail/{place}");
    let answer = server.get(&format!("{path}?width=32&height=32&method=crop")).send().await;
    assert_eq!(shape(&answer).1, 32);
    assert_eq!(server.get(&path).send().await.outcome(), (400, "M_MISSING_PARAM"));
}
