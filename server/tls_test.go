package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate writes a certificate and its key, signed by an authority or by itself.
func certificate(t *testing.T, byItself bool) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tallow.example"}, DNSNames: []string{"tallow.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	issuer := template
	if !byItself {
		issuer = &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// Only who has a certificate that browsers may trust binds them to https.
func TestStrictTransportSecurity(t *testing.T) {
	signed, signedKey := certificate(t, false)
	own, ownKey := certificate(t, true)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"plain":                          {nil, ""},
		"made at the start":              {[]string{"-tls-self-signed"}, ""},
		"by an authority":                {[]string{"-tls-cert", signed, "-tls-key", signedKey}, hsts},
		"the operator's own self-signed": {[]string{"-tls-cert", own, "-tls-key", ownKey}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, tt.args...)
			for _, path := range []string{"/", "/healthz", "/nothing"} {
				r, err := s.client.Get(s.url + path)
				if err != nil {
					t.Fatal(err)
				}
				r.Body.Close()
				if got := r.Header.Get("Strict-Transport-Security"); got != tt.want {
					t.Errorf("%s: %q, want %q", path, got, tt.want)
				}
			}
		})
	}
	c, err := parse(nil, "-acme-domain", "tallow.example", "-acme-cache", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if conf, err := tlsConfig(c); err != nil || !browsersTrust(conf) {
		t.Errorf("Let's Encrypt: %v", err)
	}
}
