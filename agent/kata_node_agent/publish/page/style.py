"""How the page looks: dark and light, from a telephone to a wall. Its hash is what the browser is allowed to use."""

from __future__ import annotations

# Contrast is 4.5 to 1 or more for words and 3 to 1 for what is drawn, in both. Parts of a bar differ in pattern, not only in
# colour.
STYLE = """
:root{color-scheme:light dark;--page:#f1f4f8;--card:#fff;--edge:#d5dbe4;--text:#1a1f26;--quiet:#566070;--link:#0a58b8;
--good:#177a34;--bad:#b3261e;--warn:#875400;--vm:#2160c4;--vm2:#7ea6ea;--other:#7a5ba6;--other2:#c3b1de;--free:#e6ebf3;
--line:#7b8794}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161c24;--edge:#303947;--text:#e7ebf1;--quiet:#a1acbb;
--link:#79b8ff;--good:#56d177;--bad:#ff8a80;--warn:#ecbc4b;--vm:#5b9bff;--vm2:#2f5596;--other:#b392f0;--other2:#574483;
--free:#222b36;--line:#8794a5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",
sans-serif;overflow-wrap:anywhere}
header,main,footer{max-width:84rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.4rem;padding-bottom:.9rem;display:flex;flex-wrap:wrap;gap:.2rem 1.6rem;align-items:baseline}
header p,header nav{margin:0}
h1{font-size:1.6rem;line-height:1.25;margin:0;flex:1 1 16rem}
h1 span{display:block;font-size:.9rem;font-weight:400;color:var(--quiet)}
h2{font-size:1.1rem;margin:0 0 .6rem}
h3{font-size:1rem;margin:0;font-weight:600}
a{color:var(--link)}
a[aria-current]{color:inherit;font-weight:600;text-decoration:none}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
code{font:.92em ui-monospace,"SF Mono",Consolas,"DejaVu Sans Mono",monospace}
.quiet{color:var(--quiet)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.unseen+*{margin-top:0}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
main{padding-bottom:1rem}
main,.columns,.side{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr);align-content:start;align-items:start}
section{position:relative;background:var(--card);border:1px solid var(--edge);border-radius:.6rem;padding:1rem 1.2rem;
min-width:0;overflow:hidden}
section>:last-child,li>:last-child{margin-bottom:0}
section>h3{margin:1rem 0 .4rem}
.verdict,.problems{border-left:.5rem solid var(--warn)}
.verdict.eligible{border-left-color:var(--good)}.verdict.ineligible,.problems{border-left-color:var(--bad)}
.verdict h2{font-size:1.5rem;line-height:1.3;margin:0}
.verdict p{margin:.2rem 0 0}
.figures{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));margin:0}
.figures dt,.figures dd{color:var(--quiet);font-size:.9rem;margin:0}
.figures strong{display:block;font-size:1.8rem;line-height:1.25;font-weight:600;color:var(--text)}
ul{list-style:none;margin:0;padding:0}
.list>li{padding:.65rem 0;border-top:1px solid var(--edge)}
.list>li:first-child{border-top:0;padding-top:0}
.list>li:last-child{padding-bottom:0}
.list p{margin:.15rem 0 0}
.bar{display:block;width:100%;height:2.25rem;border-radius:.35rem;background:var(--free);border:1px solid var(--line)}
.vms .bar{height:1.1rem;margin:.35rem 0;border:0;background:none;border-radius:0}
.vms li{display:flex;flex-wrap:wrap;gap:0 1.2rem;justify-content:space-between;align-items:baseline}
.vms p{font-size:.92rem;margin:0}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:.7rem 0 1rem}
.key li{display:flex;gap:.5rem;align-items:baseline}
.key .bar{width:1.1rem;height:.9rem;border-radius:.2rem;flex:none}
.own,.used{fill:var(--vm)}.vm{fill:var(--vm2)}.other{fill:url(#checked)}.held,.shut{fill:url(#striped)}
.room{fill:var(--free)}.gap{fill:var(--card)}
.mark{stroke:var(--bad);stroke-width:3}.edge{stroke:var(--card);stroke-width:7}
.a{fill:var(--other)}.b{fill:var(--other2)}.c{fill:var(--free)}.d{stroke:var(--line);stroke-width:2.5}
.none{position:absolute;width:0;height:0}
.tag{display:inline-block;border:1px solid;border-radius:1rem;padding:0 .6rem;font-size:.85rem;margin:.1rem .35rem .1rem 0;
white-space:nowrap;max-width:100%;overflow:hidden;text-overflow:ellipsis;vertical-align:bottom}
.scroll{overflow-x:auto;overflow-wrap:break-word}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;color:var(--quiet);padding-bottom:.4rem}
th,td{text-align:left;vertical-align:top;padding:.4rem 1rem .4rem 0;border-top:1px solid var(--edge)}
thead th{border-top:0;color:var(--quiet);font-weight:600;white-space:nowrap}
tbody th{font-weight:400}
th bdi,td bdi{display:inline-block;min-width:7rem;overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr>:last-child{padding-right:0}
time,.w{white-space:nowrap}
.decisions li{display:flex;flex-wrap:wrap;gap:0 .8rem}
.decisions div{flex:1 1 100%}
details{margin:.8rem 0}
summary{cursor:pointer;color:var(--link);padding:.25rem 0}
footer{color:var(--quiet);font-size:.9rem;padding-bottom:2rem}
@media(min-width:62rem){.columns{grid-template:auto auto 1fr/minmax(0,2fr) minmax(0,1fr)}.side{grid-column:2;grid-row:1/4}}
@media(min-width:110rem){body{font-size:20px}}
@media(forced-colors:active){.bar{forced-color-adjust:none}}
@media print{body{background:#fff}section{break-inside:avoid}nav{display:none}}
"""

# SHA-256 of it, in base64. Written down, and held to the style by a test: to compute it would load OpenSSL, 4 MiB for good.
STYLE_HASH = "xoRiwZ53Zn8k4wmHmnetVAQKJZMwEdZ1xOzDU/JhCc0="

# `data:` is the icon of the tab, which is in the page. No `sandbox`: it would keep the page from renewing itself.
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{STYLE_HASH}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
