//! Finds the sentences of documents and comments.

/// A sentence of prose.
pub struct Sentence<'a> {
    /// The line in which it begins.
    pub line: usize,
    pub words: Vec<&'a str>,
}

/// Returns the sentences of a Markdown text, without headings, tables and code.
///
/// A sentence ends with its paragraph or its item of a list, or by a full stop, question mark or
/// exclamation mark, unless a lower-case word follows.
pub fn sentences(markdown: &str) -> Vec<Sentence<'_>> {
    let mut sentences: Vec<Sentence> = Vec::new();
    let (mut is_code, mut goes_on) = (false, false);
    for (line, number) in markdown.lines().zip(1..) {
        let (is_item, text) = item(line.trim_start());
        let is_fence = text.starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence || indented(line) || text.is_empty() || text.starts_with(['#', '|'])
        {
            goes_on = false;
            continue;
        }
        goes_on &= !is_item;
        for word in text.split_whitespace() {
            if !goes_on || is_over(&sentences) && !word.starts_with(char::is_lowercase) {
                sentences.push(Sentence { line: number, words: Vec::new() });
            }
            sentences.last_mut().unwrap().words.push(word);
            goes_on = true;
        }
    }
    sentences
}

/// Returns whether a line is so far to the right that Markdown takes it for code.
pub fn indented(line: &str) -> bool {
    line.starts_with("    ")
}

/// Returns whether a line begins an item of a list, and its text.
fn item(line: &str) -> (bool, &str) {
    match line.split_once(' ') {
        Some(("-" | "*", text)) => (true, text),
        Some((marker, text)) if marker.strip_suffix('.').is_some_and(is_number) => (true, text),
        _ => (false, line),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether the last sentence has come to its end.
fn is_over(sentences: &[Sentence]) -> bool {
    let last = sentences.last().and_then(|sentence| sentence.words.last());
    let closing = ['"', '”', '’', '\'', ')', ']', '*', '_'];
    last.is_some_and(|word| word.trim_end_matches(closing).ends_with(['.', '?', '!']))
}

/// Returns the comments of Rust code as Markdown, each in the line in which it stands.
pub fn comments(code: &str) -> String {
    code.lines().map(|line| comment(line).unwrap_or_default() + "\n").collect()
}

fn comment(line: &str) -> Option<String> {
    if let Some(text) = line.trim_start().strip_prefix("//") {
        let text = text.trim_start_matches(['/', '!']);
        return Some(text.strip_prefix(' ').unwrap_or(text).to_owned());
    }
    let (code, text) = line.rsplit_once(" // ")?;
    let is_in_literal = code.matches('"').count() % 2 == 1;
    (!is_in_literal).then(|| format!("- {text}"))
}

#[test]
fn sentences_are_found() {
    let markdown = "\
# A heading. Not prose

It waits, e.g. for 1.5 s. `epoll` sleeps (as
said above.) Is it over? No

- an item. *Two* sentences.
1. of a list
   that goes on

| a | table. With |
    code. Here
```
more. Code
```
The end";
    let found = sentences(markdown);
    let found: Vec<_> = found.iter().map(|s| format!("{} {}", s.line, s.words.join(" "))).collect();
    let expected = [
        "3 It waits, e.g. for 1.5 s.",
        "3 `epoll` sleeps (as said above.)",
        "4 Is it over?",
        "4 No",
        "6 an item.",
        "6 *Two* sentences.",
        "7 of a list that goes on",
        "15 The end",
    ];
    assert_eq!(found, expected);
}

#[test]
fn comments_are_found() {
    let code = "//! Top.

    /// Doc
    // and more
let x = \"a // b\"; // last
let y = \"a // b\";";
    assert_eq!(comments(code), "Top.\n\nDoc\nand more\n- last\n\n");
}
