//! The report as one HTML page that needs nothing else: styles and charts are inside.

use std::fmt::Write;

use super::{StormReport, chart, text};
use crate::error::StormError;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#1c2330}\
pre{background:#f5f6f8;padding:1rem;overflow-x:auto}.ok{color:#16733a}.failed{color:#b3261e}\
svg{max-width:100%;height:auto}figure{margin:2rem 0}";

pub(super) fn page(report: &StormReport) -> Result<String, StormError> {
    let (word, class) = if report.is_ok() { ("ok", "ok") } else { ("FAILED", "failed") };
    let mut printed = Vec::new();
    // Writing to memory cannot fail; if it did, the page would only be shorter.
    let _ = text::write(report, &mut printed, text::Decoration::Plain);
    let title = format!("Storm on product {}", escape(&report.product));
    let mut page = String::with_capacity(64 * 1024);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}: <span class=\"{class}\">{word}</span></h1>\n\
         <pre>{}</pre>\n",
        escape(&String::from_utf8_lossy(&printed))
    );
    for (name, svg) in chart::all(report)? {
        let _ = writeln!(page, "<figure id=\"{name}\">{svg}</figure>");
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

/// Text as HTML shows it. Everything that came from outside goes through here.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let mut report = StormReport::empty_for_tests();
        let evil = "<script>alert('x')</script>&\"";
        report.product = evil.to_owned();
        report.target = evil.to_owned();
        report.rejected.insert(evil.to_owned(), 1);
        report.notes.push(evil.to_owned());
        let page = page(&report).unwrap();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"), "{page}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&StormReport::empty_for_tests()).unwrap();
        assert_eq!(page.matches("<figure").count(), 3);
        for word in ["<link", "src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
