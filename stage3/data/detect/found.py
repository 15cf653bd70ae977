class Found: pass
