package config

// maxSample is the largest value of the argument sample of access_log.
const maxSample = 1_000_000

// accessLog reads the access_log block into the configuration. Without the block it does nothing.
func (l *loader) accessLog(root *block) {
	b := root.single("access_log", accessLogSchema())
	if b == nil {
		return
	}
	a := &AccessLog{JSON: b.oneOf("format", "json", []string{"json", "text"}) == "json",
		Sample: b.integer("sample", 1, 1, maxSample)}
	a.Path, _ = b.text("path")
	if b.attrs["path"] == nil {
		b.missing("path", `An access_log block needs the path of a file, such as path = "/var/log/lictor/access.log".`)
	}
	l.cfg.AccessLog = a
}
