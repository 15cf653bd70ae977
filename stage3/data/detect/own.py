"""The detector of our own: a page is cut again and again where a line or a gutter runs through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from stage3.data.detect.cuts import Cut, best_cut
from stage3.data.detect.found import Found
from stage3.data.detect.maps import LONG_SIDE, Maps, page_maps
from stage3.data.detect.regions import Region, Side
from stage3.data.detect.sides import settled

LEAST = 0.05  # share of the shorter side (of at most 600 working pixels) that a panel has on both sides
DEPTH = 12


@dataclass
class Node:
    """A region, and how it is cut; a leaf has no cut."""

    region: Region
    cut: Cut | None = None
    down: bool = False
    parts: tuple[Node, ...] = ()

    def leaves(self):
        if not self.parts: return [self] if self.cut is None else []
        return [x for p in self.parts for x in p.leaves()]


def split(maps, region, least, depth=0):
    region = settled(maps, region)
    left, top, right, bottom = region.box()
    if min(right - left, bottom - top) < least or any(s.evidence == "empty" for s in region):
        return None
    node = Node(region)
    if depth >= DEPTH: return node
    across, down = best_cut(maps.across, region, least), best_cut(maps.down, region.turned(), least)
    if across is None and down is None: return node
    node.down = across is None or (down is not None and down.significance > across.significance)
    cut = node.cut = down if node.down else across
    turned = region.turned() if node.down else region
    kinds = {"line": ("line", "line"), "above": ("gutter", "line"), "below": ("line", "gutter")}.get(cut.kind, ("gutter", "gutter"))
    up, dn = cut.offset, cut.offset
    if cut.kind in ("above", "both"): up -= cut.above
    if cut.kind in ("below", "both"): dn += cut.below
    ev = "line"
    parts = (
        turned._replace(bottom=Side((cut.slope, up), kinds[0], "line", cut.share)),
        turned._replace(top=Side((cut.slope, dn), kinds[1], "line", cut.share)),
    )
    made = [split(maps, p.turned() if node.down else p, least, depth + 1) for p in parts]
    node.parts = tuple(p for p in made if p is not None)
    if not node.parts: node.cut=None
    return node


def gutters(node):
    own = 1 if node.cut and node.cut.kind != "line" and node.cut.significance>=18 else 0
    return own + sum(gutters(p) for p in node.parts)

def prune(node, least):
    if node.cut and node.cut.kind == "line" and node.cut.significance < least:
        node.cut=None; node.parts=(); return
    for p in node.parts: prune(p, least)

PRUNE=(2,18.)
def find(image, debug=None):
    s = min(1, LONG_SIDE / max(image.size))
    maps = page_maps(image, s)
    w, h = maps.size
    least = LEAST * min(w, h, 600)
    root = Region(Side((0., 0.), "page"), Side((0., w - 1.), "page"), Side((0., 0.), "page"), Side((0., h - 1.), "page"))
    tree = split(maps, root, least)
    leaves=[]
    if tree:
        if gutters(tree)>=PRUNE[0]: prune(tree, PRUNE[1])
        leaves = tree.leaves()
    kept=[]; log=[]
    for n in leaves:
        x0,y0,x1,y1=n.region.box()
        sub=maps.solid[int(max(y0,0)/2):int(y1/2)+1,int(max(x0,0)/2):int(x1/2)+1]
        share=sub.mean() if sub.size else 0
        lines=sum(s_.evidence=='line' for s_ in n.region)
        if lines<2 and share<.08 or share<.004: log.append(('drop',share,lines)); continue
        kept.append([n.region,[x0,y0,x1,y1],sub])
    for i,(o,sg) in enumerate(((0,1),(2,-1),(1,1),(3,-1))):
        known=[q[1][o]*sg for q in kept if q[0][i].kind=='page' and q[0][i].evidence in('line','dense')]
        for q in kept:
            if q[0][i].kind=='page' and q[0][i].evidence=='ragged' and known:
                rr=np.flatnonzero(q[2].any(0 if i<2 else 1))
                if len(rr):
                    inner=(rr[0] if sg>0 else rr[-1]+1)*2+int(q[1][(0,0,1,1)[i]]/2)*2
                    q[1][o]=sg*min(min(known),inner*sg)
    boxes=[];conf=[]
    for r,bb,_ in kept:
        x0,y0,x1,y1=[v/maps.scale for v in bb]
        x0,y0=max(0,x0),max(0,y0); x1=min(image.width,x1+1); y1=min(image.height,y1+1)
        if x1-x0<1 or y1-y0<1: continue
        boxes.append((x0,y0,x1-x0,y1-y0)); conf.append(np.mean([s_.strength for s_ in r]))
    if debug is not None:
        def cutlog(n,d=0):
            out=[(d,n.down,n.cut,[round(v) for v in n.region.box()],[(s_.kind,s_.evidence,round(s_.strength,2)) for s_ in n.region])]
            for p in n.parts: out+=cutlog(p,d+1)
            return out
        debug.append((maps,tree,cutlog(tree) if tree else []))
    return np.array(boxes).reshape(-1,4),np.array(conf)
