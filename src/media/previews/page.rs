//! What a page says of itself, read as a stream of tags with a bound on everything.
//!
//! `OpenGraph` wins, then Twitter's tags, then the page's title and description. Nothing is built of
//! the page but what is kept of it.

use std::{cell::RefCell, collections::BTreeMap};

use encoding_rs::{Encoding, UTF_8};
use lol_html::{HtmlRewriter, MemorySettings, Settings, element, html_content::Element, text};
use serde_json::{Map, Value};

/// How many tags are kept, how long their names may be and how many characters of each are kept.
const TAGS_MAX: usize = 50;
const NAME_BYTES_MAX: usize = 100;
const VALUE_CHARS_MAX: usize = 1_000;
/// How many elements are looked at.
const ELEMENTS_MAX: usize = 10_000;
/// What the parser may take, in bytes: an attribute may be as long as the page.
const PARSER_BYTES_MAX: usize = 4 << 20;
/// How much of a page is searched for its encoding, as browsers do.
const ENCODING_BYTES_MAX: usize = 1_024;

/// What a page says.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What is answered of it.
    pub(super) fields: Map<String, Value>,
    /// Its picture.
    pub(super) image: Option<String>,
    /// Where more is said, in the form of oEmbed.
    pub(super) oembed: Option<String>,
}

/// What is gathered while the page is read.
#[derive(Default)]
struct Gathered {
    elements: usize,
    graph: BTreeMap<String, String>,
    twitter: BTreeMap<String, String>,
    description: Option<String>,
    title: String,
    titles: usize,
    image: Option<String>,
    oembed: Option<String>,
}

impl Page {
    /// Reads a page, or the beginning of one.
    pub(super) fn parse(body: &[u8], content_type: Option<&str>) -> Self {
        let encoding = encoding_of(body, content_type);
        let (text, _, _) = encoding.decode(body);
        let gathered = RefCell::new(Gathered::default());
        read(&text, &gathered);
        gathered.into_inner().into_page()
    }

    /// Adds what is missing from what a site says in the form of oEmbed.
    pub(super) fn add_oembed(&mut self, said: &Map<String, Value>) {
        let text = |name: &str| said.get(name).and_then(Value::as_str).and_then(kept);
        for (name, field) in [("title", "og:title"), ("provider_name", "og:site_name")] {
            if let Some(text) = text(name)
                && !self.fields.contains_key(field)
            {
                self.fields.insert(field.to_owned(), text.into());
            }
        }
        if self.image.is_none() {
            let is_photo = text("type").as_deref() == Some("photo");
            self.image = text("url").filter(|_| is_photo).or_else(|| text("thumbnail_url"));
        }
    }
}

/// Reads until the end, or until a bound is reached: what was gathered counts.
fn read(text: &str, gathered: &RefCell<Gathered>) {
    let mut settings = Settings::new();
    settings = settings.with_memory_settings(
        MemorySettings::new().with_max_allowed_memory_usage(PARSER_BYTES_MAX),
    );
    settings = settings
        .with_strict(false)
        .append_element_content_handler(element!("*", |element: &mut Element<'_, '_>| {
            let mut gathered = gathered.borrow_mut();
            gathered.elements += 1;
            if gathered.elements > ELEMENTS_MAX {
                return Err("the page has too many elements".into());
            }
            gathered.see(element);
            Ok(())
        }))
        .append_element_content_handler(text!("title", |chunk| {
            let mut gathered = gathered.borrow_mut();
            if gathered.titles == 1 && gathered.title.len() < 4 * VALUE_CHARS_MAX {
                gathered.title.push_str(chunk.as_str());
            }
            Ok(())
        }));
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| {});
    if let Err(error) = rewriter.write(text.as_bytes()) {
        tracing::debug!(%error, "a page was not read to its end");
        return;
    }
    if let Err(error) = rewriter.end() {
        tracing::debug!(%error, "a page was not read to its end");
    }
}

impl Gathered {
    fn see(&mut self, element: &Element<'_, '_>) {
        match element.tag_name().as_str() {
            "title" => self.titles += 1,
            "meta" => self.see_meta(element),
            "link" => self.see_link(element),
            _ => {}
        }
    }

    fn see_meta(&mut self, element: &Element<'_, '_>) {
        let name = element.get_attribute("property").or_else(|| element.get_attribute("name"));
        let (Some(name), Some(content)) = (name, element.get_attribute("content")) else { return };
        let name = name.trim().to_ascii_lowercase();
        if name.len() > NAME_BYTES_MAX {
            return;
        }
        let Some(content) = kept(&decoded(&content)) else { return };
        let tags = match name.as_str() {
            "description" => {
                self.description.get_or_insert(content);
                return;
            }
            _ if name.starts_with("og:") => &mut self.graph,
            _ if name.starts_with("twitter:") => &mut self.twitter,
            _ => return,
        };
        if tags.len() < TAGS_MAX {
            tags.entry(name).or_insert(content);
        }
    }

    fn see_link(&mut self, element: &Element<'_, '_>) {
        let attribute = |name| element.get_attribute(name).unwrap_or_default();
        let href = decoded(&attribute("href"));
        if href.is_empty() {
            return;
        }
        if attribute("type").trim().eq_ignore_ascii_case("application/json+oembed") {
            self.oembed.get_or_insert(href);
        } else if attribute("rel").trim().eq_ignore_ascii_case("image_src") {
            self.image.get_or_insert(href);
        }
    }

    fn into_page(mut self) -> Page {
        let title = kept(&decoded(&self.title));
        let others = [
            ("og:title", self.twitter.remove("twitter:title").or(title)),
            ("og:description", self.twitter.remove("twitter:description").or(self.description)),
        ];
        for (name, text) in others {
            if let Some(text) = text {
                self.graph.entry(name.to_owned()).or_insert(text);
            }
        }
        let mut image = None;
        for name in ["og:image:secure_url", "og:image", "og:image:url"] {
            image = image.or(self.graph.remove(name));
        }
        // They are of the picture at the site, and are told anew of the one that is stored.
        self.graph.retain(|name, _| !name.starts_with("og:image:") || name == "og:image:alt");
        let image = image
            .or_else(|| self.twitter.remove("twitter:image"))
            .or_else(|| self.twitter.remove("twitter:image:src"))
            .or(self.image);
        let fields = self.graph.into_iter().take(TAGS_MAX);
        let fields = fields.map(|(name, text)| (name, Value::String(text))).collect();
        Page { fields, image, oembed: self.oembed }
    }
}

/// Text in one line, cut; `None` where nothing is left.
fn kept(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(VALUE_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// The encoding by the mark at the beginning, the header, or the page's own word.
fn encoding_of(body: &[u8], content_type: Option<&str>) -> &'static Encoding {
    if let Some((encoding, _)) = Encoding::for_bom(body) {
        return encoding;
    }
    let label = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let rest = lower.split_once("charset")?.1.trim_start().strip_prefix('=')?.trim_start();
        let rest = rest.trim_start_matches(['"', '\'']);
        let end = rest.find(|c: char| c.is_whitespace() || "\"';/>".contains(c));
        Encoding::for_label(&rest.as_bytes()[..end.unwrap_or(rest.len())])
    };
    if let Some(encoding) = content_type.and_then(label) {
        return encoding;
    }
    let head = &body[..body.len().min(ENCODING_BYTES_MAX)];
    let head: String = head.iter().map(|&byte| char::from(byte)).collect();
    let said = head.match_indices("<meta").find_map(|(at, _)| {
        let tag = &head[at..];
        label(&tag[..tag.find('>').unwrap_or(tag.len())])
    });
    // A page that could be read so far to find this out is in no encoding of two bytes.
    said.filter(|encoding| encoding.is_ascii_compatible()).unwrap_or(UTF_8)
}

/// Text with its references to characters replaced, the usual ones alone.
fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let reference = after.bytes().take(12).position(|byte| byte == b';');
        let character = reference.and_then(|end| character(&after[..end]));
        if let (Some(character), Some(end)) = (character, reference) {
            out.push(character);
            rest = &after[end + 1..];
        } else {
            out.push('&');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        return char::from_u32(number.ok()?);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "laquo" => '«',
        "raquo" => '»',
        "hellip" => '…',
        "middot" => '·',
        "bull" => '•',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "euro" => '€',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(page: &'a Page, name: &str) -> &'a str {
        page.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    #[test]
    fn a_page_is_described_by_its_tags() {
        let page = Page::parse(
            br#"<!doctype html><html><head><title>Not this</title>
            <meta property="og:title" content="A &amp; B &#x1F600;">
            <meta name="twitter:description" content="  From
               Twitter ">
            <meta property="og:image" content="/a.png"><meta property="og:image:width" content="9">
            <link rel=alternate type="application/json+oembed" href="/oembed?a=1&amp;b=2">"#,
            Some("text/html"),
        );
        assert_eq!(field(&page, "og:title"), "A & B 😀");
        assert_eq!(field(&page, "og:description"), "From Twitter");
        assert_eq!(page.image.as_deref(), Some("/a.png"));
        assert_eq!(page.oembed.as_deref(), Some("/oembed?a=1&b=2"));
        assert!(!page.fields.contains_key("og:image:width"));
    }

    #[test]
    fn a_page_without_tags_has_a_title() {
        let page = Page::parse(
            b"<title>One</title><meta name=description content=Two><svg><title>No</title></svg>",
            None,
        );
        assert_eq!((field(&page, "og:title"), field(&page, "og:description")), ("One", "Two"));
    }

    #[test]
    fn t103_encodings_are_understood() {
        let latin = b"<meta charset=iso-8859-1><title>caf\xe9</title>";
        assert_eq!(field(&Page::parse(latin, None), "og:title"), "café");
        let header = Some("text/html; charset=\"Shift_JIS\"");
        let page = Page::parse(b"<title>\x93\xfa\x96{</title>", header);
        assert_eq!(field(&page, "og:title"), "日本");
        let wide: Vec<u8> =
            "\u{feff}<title>wide</title>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(field(&Page::parse(&wide, None), "og:title"), "wide");
        let page = Page::parse(b"<meta charset=utf-16><title>lie</title>", None);
        assert_eq!(field(&page, "og:title"), "lie");
    }

    #[test]
    fn t103_hostile_pages_end() {
        let deep = format!("<title>x</title>{}", "<div>".repeat(100_000));
        assert_eq!(field(&Page::parse(deep.as_bytes(), None), "og:title"), "x");
        let wide = format!("<title>x</title><p a=\"{}\">", "y".repeat(10 << 20));
        assert_eq!(field(&Page::parse(wide.as_bytes(), None), "og:title"), "x");
        let many: Vec<String> = (0..100_000)
            .map(|number| format!("<meta property='og:a{number}' content='é'>"))
            .collect();
        let many = many.concat();
        assert_eq!(Page::parse(many.as_bytes(), None).fields.len(), TAGS_MAX);
        let long = format!("<title>{}</title>", "é".repeat(5_000));
        assert_eq!(field(&Page::parse(long.as_bytes(), None), "og:title").chars().count(), 1_000);
        let entities =
            "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><title>&b;</title>";
        assert!(field(&Page::parse(entities.as_bytes(), None), "og:title").len() < 20);
    }
}
