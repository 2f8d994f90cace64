"""The style of the parts of ``report.html`` about texts: cards, shaded words, points."""

STYLE = """
ol.cards { margin: .8rem 0 0; padding: 0; list-style: none; display: grid; gap: .7rem; }
ol.cards li { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; min-width: 0; }
.answer { margin: 0 0 .35rem; font-size: .92rem; }
.right, .wrong { color: var(--card); border-radius: 4px; padding: .05rem .4rem; font-size: .8rem; font-weight: 600; }
.right { background: var(--right); } .wrong { background: var(--wrong); }
.text { font-size: .95rem; }
.for, .against { border-radius: 3px; padding: .06em .12em; }
.for { background: rgb(var(--for) / calc(var(--a) * .55)); }
.against { background: rgb(var(--against) / calc(var(--a) * .6)); }
svg.points { width: 100%; max-width: 40rem; height: auto; display: block; }
svg.points circle { fill-opacity: .8; }
svg.points .ring { stroke: var(--ink); stroke-width: 2; }
ul.legend { list-style: none; margin: .6rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem;
  font-size: .9rem; }
ul.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 50%; margin-right: .4rem; }
ul.legend i.ring { border: 2px solid var(--ink); }
"""
