package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Each path answers with a JSON error to each method that is not its own, and so does each path that does not exist.
func TestErrorsOfPathsAndMethodsAreJSON(t *testing.T) {
	h := serve(t, Options{}, "web")
	mux := h.mux()
	ask := func(method, path string, code int, allow string) {
		t.Helper()
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{}")))
		var body struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error == "" {
			t.Errorf("%s %s: got %q, want an error in JSON", method, path, w.Body)
		}
		if got := w.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: the type of the body is %q", method, path, got)
		}
		if w.Code != code || w.Header().Get("Allow") != allow {
			t.Errorf("%s %s: got %d, Allow %q, want %d, Allow %q", method, path,
				w.Code, w.Header().Get("Allow"), code, allow)
		}
	}
	allowed := map[string][]string{}
	for _, r := range h.routes() {
		allowed[r.path] = append(allowed[r.path], r.method)
		if r.method == http.MethodGet {
			allowed[r.path] = append(allowed[r.path], http.MethodHead)
		}
	}
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "ODD"}
	for path, own := range allowed {
		path = strings.NewReplacer("{name}", "web", "{$}", "").Replace(path)
		for _, method := range methods {
			if !slices.Contains(own, method) {
				ask(method, path, http.StatusMethodNotAllowed, strings.Join(own, ", "))
			}
			if path != "/" {
				ask(method, path+"/no/such/path", http.StatusNotFound, "")
				ask(method, path+"/", http.StatusNotFound, "")
			}
		}
	}
	if len(allowed) < 20 {
		t.Errorf("only %d paths", len(allowed))
	}
	for _, path := range []string{"/v1/services/none", "/v1/services/none/excluded", "/v1/services/none/history"} {
		ask("GET", path, http.StatusNotFound, "")
	}
	for _, path := range []string{"/v1/services/none/drain", "/v1/services/none/undrain"} {
		ask("POST", path, http.StatusNotFound, "")
	}
}
