#!/bin/sh
# Draws what a command printed as a picture of a terminal, in SVG.
#
#   ringmark report results/FOLDER | scripts/terminal_svg.sh 'scripts/run_matrix.sh' > picture.svg
set -eu
[ $# -eq 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }

exec awk -v command="$1" '
function escaped(text) {
    gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
    return text
}
function line(class, text) {
    texts = texts sprintf("<text class=\"%s\" x=\"16\" y=\"%d\">%s</text>\n", class, y, escaped(text))
    y += 18
}
BEGIN { y = 52; line("command", "$ " command) }
{
    # A heading stands at the margin, above rows that do not.
    if (length($0) > width) width = length($0)
    line($0 ~ /^[^ ].* (over|per) / ? "heading" : "output", $0)
}
END {
    # Letters of 13 px are 7.83 px wide.
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" role=\"img\">\n", \
        int(7.83 * width + 40), y
    printf "<title>A terminal: %s, and what it printed</title>\n", escaped(command)
    print "<style>text { font: 13px ui-monospace, Menlo, Consolas, \"DejaVu Sans Mono\", monospace;"
    print "white-space: pre; fill: #d7dde4 } .command { fill: #8fd694 }"
    print ".heading { fill: #ffffff; font-weight: 600 }</style>"
    print "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#161b22\"/>"
    print "<circle cx=\"20\" cy=\"18\" r=\"5\" fill=\"#ff5f57\"/>"
    print "<circle cx=\"38\" cy=\"18\" r=\"5\" fill=\"#febc2e\"/>"
    print "<circle cx=\"56\" cy=\"18\" r=\"5\" fill=\"#28c840\"/>"
    printf "%s</svg>\n", texts
}'
