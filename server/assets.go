package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// page is served at /.
const page = "index.html"

// errNoPage says that the files to serve have not been built.
var errNoPage = errors.New("no " + page + " among the files to serve: run make build")

// contentTypes of what is served; files with other extensions are not.
var contentTypes = map[string]string{
	".html":        "text/html; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".css":         "text/css; charset=utf-8",
	".svg":         "image/svg+xml",
	".png":         "image/png",
	".ico":         "image/x-icon",
	".webmanifest": "application/manifest+json",
	".json":        "application/json",
	".ts":          "text/plain; charset=utf-8",
	".wasm":        "application/wasm",
}

// embeddable are the extensions of what other sites load when they embed Tallow.
var embeddable = []string{".js", ".wasm", ".ts"}

// encodings that a file may have beside it, the one preferred first.
var encodings = []struct{ name, extension string }{{"br", ".br"}, {"gzip", ".gz"}}

// assetTimeout ends a download that does not end.
const assetTimeout = 10 * time.Minute

// assets serves files that were compressed when they were built.
type assets struct {
	files        fs.FS
	variants     map[string][]variant // by the file's name; the last one is the file itself
	allowOrigins []string
	wasmHash     string // SHA-256 of tallow.wasm in hexadecimal, empty without one
}

type variant struct {
	name     string // of the file with the bytes
	encoding string // empty: as it is
	etag     string
	size     int64
}

// newAssets takes stock of the files. It fails without a page.
func newAssets(files fs.FS, allowOrigins []string) (*assets, error) {
	a := &assets{files: files, variants: make(map[string][]variant), allowOrigins: allowOrigins}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || contentTypes[path.Ext(name)] == "" {
			return err
		}
		var all []variant
		for _, e := range encodings {
			v, _, err := newVariant(files, name+e.extension, e.name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			all = append(all, v)
		}
		v, hash, err := newVariant(files, name, "")
		if name == "tallow.wasm" {
			a.wasmHash = hash
		}
		a.variants[name] = append(all, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("files to serve: %w", err)
	}
	if a.variants[page] == nil {
		return nil, errNoPage
	}
	return a, nil
}

func newVariant(files fs.FS, name, encoding string) (v variant, hash string, err error) {
	f, err := files.Open(name)
	if err != nil {
		return variant{}, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return variant{}, "", err
	}
	hash = fmt.Sprintf("%x", h.Sum(nil))
	return variant{name: name, encoding: encoding, etag: `"` + hash[:32] + `"`, size: size}, hash, nil
}

// ServeHTTP implements http.Handler.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = page
	}
	variants := a.variants[name]
	if variants == nil || r.URL.Path == "/"+page {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	v := negotiate(variants, r.Header.Values("Accept-Encoding"))
	h := w.Header()
	h.Set("Content-Type", contentTypes[path.Ext(name)])
	h.Set("Cache-Control", "no-cache") // no name says which version it is
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", v.etag)
	if slices.Contains(embeddable, path.Ext(name)) {
		a.allow(h, r.Header.Get("Origin"))
	}
	if v.encoding != "" {
		h.Set("Content-Encoding", v.encoding)
	}
	if matches(r.Header.Values("If-None-Match"), v.etag) {
		h.Del("Content-Type")
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.FormatInt(v.size, 10))
	if r.Method == http.MethodHead {
		return
	}
	f, err := a.files.Open(v.name)
	if err != nil {
		h.Del("Content-Length")
		h.Del("Content-Encoding")
		h.Del("ETag")
		h.Set("Cache-Control", "no-store")
		http.Error(w, "cannot open file", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	// Not every ResponseWriter has deadlines; without one the download is bounded by the connection alone.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(assetTimeout))
	_, _ = io.Copy(w, f) // a reader that went away is no error of ours
}

// allow lets pages of allowed origins load a module file. Without such origins the header of same origin stands.
func (a *assets) allow(h http.Header, origin string) {
	if len(a.allowOrigins) == 0 {
		return
	}
	// Requests without an Origin (a script in a worker) are decided by this alone; the files are no secret.
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Add("Vary", "Origin")
	switch {
	case slices.Contains(a.allowOrigins, "*"):
		h.Set("Access-Control-Allow-Origin", "*")
	case origin != "" && slices.Contains(a.allowOrigins, strings.ToLower(origin)):
		h.Set("Access-Control-Allow-Origin", origin)
	}
}

// negotiate picks the variant that RFC 9110 section 12.5.3 allows and that is smallest by our order.
func negotiate(variants []variant, accept []string) variant {
	quality := make(map[string]float64)
	for _, item := range strings.Split(strings.Join(accept, ","), ",") {
		coding, params, _ := strings.Cut(item, ";")
		q := 1.0
		if name, value, ok := strings.Cut(strings.TrimSpace(params), "="); ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
				q = 0
			}
		}
		quality[strings.ToLower(strings.TrimSpace(coding))] = q
	}
	for _, v := range variants {
		q, named := quality[v.encoding]
		if !named {
			q = quality["*"]
		}
		if v.encoding != "" && q > 0 {
			return v
		}
	}
	return variants[len(variants)-1] // even if refused: something readable beats 406
}

// matches evaluates If-None-Match, which compares weakly (RFC 9110 section 13.1.2).
func matches(headers []string, etag string) bool {
	for _, item := range strings.Split(strings.Join(headers, ","), ",") {
		item = strings.TrimSpace(item)
		if item == "*" || strings.TrimPrefix(item, "W/") == etag {
			return true
		}
	}
	return false
}

// hsts is how long browsers that have been here by https come by nothing else.
const hsts = "max-age=31536000"

// secure gives every response the headers that leave scripts no foothold and, where strict, nobody a way to http. Caches
// keep nothing, unless who answers says otherwise. A request that brings a body is refused and its connection closed:
// nothing here takes one, so nobody need agree with a proxy on where it ends and the next request begins.
func secure(next http.Handler, strict bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if strict {
			h.Set("Strict-Transport-Security", hsts)
		}
		h.Set("Content-Security-Policy", contentSecurityPolicy(r.Host))
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "+
			"magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			h.Set("Connection", "close")
			http.Error(w, "requests have no body here", http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// contentSecurityPolicy allows this origin's own files, WebAssembly and WebSockets, and nothing else.
func contentSecurityPolicy(host string) string {
	connect := "'self'"
	// Browsers of before 2022 do not count WebSockets of the same origin as 'self'.
	if host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") == "" {
		connect += " ws://" + host + " wss://" + host
	}
	return "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; " +
		"connect-src " + connect + "; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types tallow-worker"
}
