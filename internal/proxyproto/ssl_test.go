package proxyproto

import (
	"bytes"
	"strings"
	"testing"
)

func TestAppendSSL(t *testing.T) {
	const cipher = "TLS_AES_128_GCM_SHA256"
	plain := []byte("\x21\x00\x07TLSv1.3\x23\x00\x16" + cipher)
	for _, tt := range []struct {
		name string
		c    TLSClient
		bits byte
		more string
	}{
		{"no certificate", TLSClient{CommonName: "nobody"}, 1, ""},
		{"certificate", TLSClient{Certificate: true, CommonName: "me"}, 7, "\x22\x00\x02me"},
		{"resumed", TLSClient{Certificate: true, Resumed: true, CommonName: "me"}, 5, "\x22\x00\x02me"},
		{"no name", TLSClient{Certificate: true}, 7, ""},
	} {
		tt.c.Version, tt.c.Cipher = "TLSv1.3", cipher
		value := join([]byte{tt.bits, 0, 0, 0, 0}, plain, []byte(tt.more))
		want := TLVs("before").Append(SSL, value)
		if got := TLVs("before").AppendSSL(tt.c); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", tt.name, got, want)
		}
	}
	long := TLSClient{Certificate: true, CommonName: strings.Repeat("x", MaxHeader)}
	if got := TLVs("before").AppendSSL(long); string(got) != "before" {
		t.Errorf("got %d bytes", len(got))
	}
}
