"""The style of a page, for light and dark screens of any size; packages add the style of their own parts."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2230; --soft: #5b6577; --line: #dde1e8;
  --accent: #1f5fbf; --right: #1b7f4b; --wrong: #b3321f; --for: 37 99 235; --against: 217 119 6; }
@media (prefers-color-scheme: dark) { :root { --page: #11151c; --card: #1a202a; --ink: #e4e8ee; --soft: #9aa5b5;
  --line: #303947; --accent: #7db0ff; --right: #58c98d; --wrong: #ff8a75; --for: 59 130 246; --against: 234 140 20; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5; overflow-wrap: anywhere;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.6rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 0 0 .8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { margin: .5rem 0; }
a { color: var(--accent); }
small, .note, .lead { color: var(--soft); }
.note { border-left: 3px solid var(--line); padding-left: .7rem; }
nav { position: sticky; top: 0; z-index: 2; background: var(--page); border-bottom: 1px solid var(--line); }
nav div { max-width: 68rem; margin: 0 auto; padding: .55rem 1rem; display: flex; gap: 1.1rem; overflow-x: auto;
  white-space: nowrap; scrollbar-width: none; }
nav a { text-decoration: none; font-size: .92rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.2rem;
  margin: 1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; display: flex;
  flex-direction: column; }
.tile span { color: var(--soft); font-size: .88rem; }
.tile b { font-size: 1.65rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .5rem 1.2rem;
  margin: 1rem 0 0; }
dl.facts dt { color: var(--soft); font-size: .82rem; }
dl.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.box { overflow: auto; max-height: 30rem; border: 1px solid var(--line); border-radius: 8px; width: fit-content;
  max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .92rem; }
th, td { padding: .38rem .8rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
  overflow-wrap: break-word; }
tbody tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.picture { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .5rem;
  width: fit-content; max-width: 100%; }
.box + .picture { margin-top: 1rem; }
.picture img { display: block; max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  section { padding: .9rem .8rem; } .picture.wide img { max-width: none; width: 38rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tile { padding: .55rem .65rem; }
  .tile b { font-size: 1.4rem; } dl.facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  table { font-size: .85rem; } th, td { padding: .35rem .5rem; white-space: normal; } .n { white-space: nowrap; }
  td:not(.n) { min-width: 6rem; } }
.beside { display: flex; flex-wrap: wrap; gap: 1.2rem; } .beside > div { min-width: 0; max-width: 100%; }
.beside h3 { margin-top: 0; }
details { margin-top: .9rem; } summary { cursor: pointer; color: var(--accent); }
pre { overflow: auto; max-height: 30rem; font-size: .85rem; border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem; white-space: pre; overflow-wrap: normal; }
footer { color: var(--soft); font-size: .85rem; padding-bottom: 2rem; }
"""
