//! Links within the repository.

use crate::{documents, root, text};

/// Returns the targets of links and pictures outside code.
fn targets(text: &str) -> Vec<&str> {
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let shown = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    linked.chain(shown).filter(|target| !target.contains("://")).collect()
}

/// Returns the anchors of a document's headings, as they are made of Markdown on the web.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let is_kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(is_kept).collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for document in documents() {
        let content = text(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for target in targets(&content) {
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            let has_anchor = anchor.is_empty()
                || std::fs::read_to_string(&path)
                    .is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor));
            if !path.exists() || !has_anchor {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
    assert!(count > 50, "{count} links");
}

#[test]
fn targets_and_anchors_are_found() {
    let text = "# One, two\n[a](b.md#c-d) <img src=\"e.svg\" alt=\"\"> [f](https://example.org)\n";
    assert_eq!(targets(text), ["b.md#c-d", "e.svg"]);
    assert_eq!(anchors(text), ["one-two"]);
    assert_eq!(anchors("## Unix sockets, IPv6, Ethernet\n"), ["unix-sockets-ipv6-ethernet"]);
}
