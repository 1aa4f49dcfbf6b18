//! Markdown as its readers see it.

/// Returns a document without its comments, line for line.
pub fn without_comments(text: &str) -> String {
    let mut pieces = text.split("<!--");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |shown, piece| {
        let (comment, after) = piece.split_once("-->").expect("the end of a comment");
        shown + &"\n".repeat(comment.matches('\n').count()) + after
    })
}
