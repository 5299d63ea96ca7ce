package proxyproto

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
)

// expect checks what parse, which is Parse or ParseDatagram, returns for b.
func expect(t *testing.T, parse func([]byte) (Header, int, error), b []byte, want Header, wantN int, wantErr error) {
	t.Helper()
	h, n, err := parse(b)
	if n != wantN || err != wantErr || !same(h, want) {
		t.Errorf("%d bytes: got %v, %d, %v, want %v, %d, %v", len(b), h, n, err, want, wantN, wantErr)
	}
}

// same reports whether two headers say the same.
func same(a, b Header) bool {
	return a.Src == b.Src && a.Dst == b.Dst && a.Datagram == b.Datagram && bytes.Equal(a.TLVs, b.TLVs)
}

func TestParse(t *testing.T) {
	for _, tt := range samples() {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.in {
				expect(t, Parse, tt.in[:i:i], Header{}, 0, nil)
			}
			for _, data := range []string{"", "G", "GET / HTTP/1.1\r\n", string(tt.in), strings.Repeat("x", 1<<16)} {
				expect(t, Parse, append(bytes.Clone(tt.in), data...), tt.want, len(tt.in), nil)
			}
		})
	}
}

// Once a header has been refused, more bytes do not change that.
func TestParseRefuses(t *testing.T) {
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.in {
				if i < tt.at {
					expect(t, Parse, tt.in[:i:i], Header{}, 0, nil)
				} else {
					expect(t, Parse, tt.in[:i:i], Header{}, 0, tt.want)
				}
			}
			for _, data := range []string{"", "x", "\r\n", strings.Repeat("x", 1<<16)} {
				expect(t, Parse, append(bytes.Clone(tt.in), data...), Header{}, 0, tt.want)
			}
		})
	}
}

func TestParseDatagram(t *testing.T) {
	for _, tt := range samples() {
		t.Run(tt.name, func(t *testing.T) {
			whole := append(bytes.Clone(tt.in), "query"...)
			if strings.HasPrefix(string(tt.in), "PROXY") {
				expect(t, ParseDatagram, whole, Header{}, 0, errSignature)
				return
			}
			expect(t, ParseDatagram, whole, tt.want, len(tt.in), nil)
			expect(t, ParseDatagram, tt.in, tt.want, len(tt.in), nil)
			for i := range tt.in {
				expect(t, ParseDatagram, tt.in[:i:i], Header{}, 0, errDatagram)
			}
		})
	}
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if strings.HasPrefix(string(tt.in), "PRO") {
				want = errSignature
			}
			expect(t, ParseDatagram, tt.in, Header{}, 0, want)
		})
	}
}

func TestErrorsNameTheLimits(t *testing.T) {
	limits := map[malformed]int{errTooLong: MaxHeader, errLineTooLong: maxLine, errUniqueID: maxUniqueID}
	for err, limit := range limits {
		if !strings.Contains(err.Error(), " "+strconv.Itoa(limit)+" ") {
			t.Errorf("%q does not name %d", err, limit)
		}
	}
}
