package admin

import (
	"bytes"
	"embed"
	"net/http"
	"path"
	"time"
)

// The page is a few static files, which need no build step.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own files and call this server, and nothing else. pagePolicy also prevents text
// from becoming script if the page has a mistake.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'"

// pageRoutes returns a route for each file of the page, and "/" for index.html.
func pageRoutes() []route {
	files, _ := pageFiles.ReadDir("page") // reading an embedded folder cannot fail
	routes := []route{{"GET", "/{$}", pageFile("index.html")}}
	for _, f := range files {
		if f.Name() != "index.html" {
			routes = append(routes, route{"GET", path.Join("/", f.Name()), pageFile(f.Name())})
		}
	}
	return routes
}

func pageFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		w.Header().Set("Content-Security-Policy", pagePolicy)
		w.Header().Set("Cache-Control", "no-cache") // another version of Lictor has another page
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
	}
}
