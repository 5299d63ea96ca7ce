package daemon

import "testing"

func TestReadyURL(t *testing.T) {
	for _, tt := range []struct{ consul, admin, want string }{
		{"127.0.0.1:8500", "127.0.0.1:8510", "http://127.0.0.1:8510/readyz"},
		{"https://localhost:8501", "0.0.0.0:8510", "http://127.0.0.1:8510/readyz"},
		{"unix:///run/consul.sock", "[::1]:8510", "http://[::1]:8510/readyz"},
		{"http://[::1]:8500", "10.0.0.5:8510", "http://10.0.0.5:8510/readyz"},
		{"consul.example.com:8500", "127.0.0.1:8510", ""}, // its own 127.0.0.1
		{"consul.example.com:8500", "10.0.0.5:8510", "http://10.0.0.5:8510/readyz"},
		{"127.0.0.1:8500", "unix:///run/lictor/admin.sock", ""},
		{"127.0.0.1:8500", "", ""},
	} {
		if got := readyURL(tt.consul, tt.admin); got != tt.want {
			t.Errorf("consul %s, admin %s: got %q, want %q", tt.consul, tt.admin, got, tt.want)
		}
	}
}
