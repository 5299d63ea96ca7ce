{{/* Lictor. "engine" chooses between the event loops of Linux (default) and the goroutine engine ("portable"). */ -}}
log_level = "warn"
{{- if .Portable}}
engine = "portable"
{{- end}}
{{- if .KernelPath}}
kernel_path = "{{.KernelPath}}"
{{- end}}
{{- if .Cgroup}}
kernel_path_cgroup = "{{.Cgroup}}"
{{- end}}
{{- if .Consul}}
consul { address = "{{.Consul}}" }
{{- end}}
{{- if .Mesh.Consul}}
consul { address = "{{.Mesh.Consul}}" }
{{- end}}
{{- with .Inbound}}
mesh {
  bind  = "{{.Listen.Addr}}"
  ports = "{{.Listen.Port}}-{{.Listen.Port}}"
}
expose "mesh" {
  local = "{{.Local}}"
}
{{- end}}
{{- range .Services}}{{$unix := .UnixEndpoints}}
service "{{.Name}}" {
  listen   = "{{if .UnixClients}}unix://{{$.Path .}}{{else}}{{.Listen}}{{end}}"
  protocol = "{{.Protocol}}"
{{- if .MaxSessions}}
  max_sessions = {{.MaxSessions}}
{{- end}}
{{- if .Responses}}
  responses = {{.Responses}}
{{- end}}
{{- if .IdleTimeout}}
  idle_timeout = "{{.IdleTimeout}}"
{{- end}}
{{- if .SendProxy}}
  send_proxy = "v2"
{{- end}}
{{- if .SNI}}
  sni = ["db.example.com"]
{{- end}}
{{- if .TLS}}
  tls {
    cert_file = "{{$.TLS.Cert}}"
    key_file  = "{{$.TLS.Key}}"
  }
{{- end}}
{{- if .AcceptProxy}}
  accept_proxy { from = ["127.0.0.0/8"] }
{{- end}}
{{- if .Mesh}}
  mesh { as = "web" }
{{- else if .Endpoints}}
  static {
    endpoints = [{{range .Endpoints}}"{{if $unix}}unix://{{end}}{{.}}", {{end}}]
  }
{{- end}}
}
{{- if .SNI}}
service "{{.Name}}-other" {
  listen = "{{.Listen}}"
  sni    = ["other.example.com"]
  static {
    endpoints = [{{range .Endpoints}}"{{.}}", {{end}}]
  }
}
{{- end}}
{{- end}}
