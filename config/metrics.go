package config

// metrics reads the metrics block. Without the block, endpoints have series of their own.
func (l *loader) metrics(root *block) {
	l.cfg.Metrics.Endpoints = true
	if b := root.single("metrics", metricsSchema()); b != nil {
		l.cfg.Metrics.Endpoints = b.boolean("endpoints", true)
	}
}
