package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// tlsConfig is the TLS configuration that c asks for, or nil.
func tlsConfig(c *config) (*tls.Config, error) {
	switch {
	case c.tlsCert != "":
		cert, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
		if err != nil {
			return nil, fmt.Errorf("-tls-cert, -tls-key: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
	case c.tlsSelfSigned:
		cert, err := selfSigned(time.Now())
		if err != nil {
			return nil, fmt.Errorf("-tls-self-signed: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
	case len(c.acmeDomains.values) > 0:
		folder := c.acmeCache
		if folder == "" {
			user, err := os.UserCacheDir()
			if err != nil {
				return nil, fmt.Errorf("-acme-cache is needed: %w", err)
			}
			folder = filepath.Join(user, "tallow-acme")
		}
		m := &autocert.Manager{
			Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(folder), HostPolicy: autocert.HostWhitelist(c.acmeDomains.values...),
		}
		return m.TLSConfig(), nil // answers the TLS-ALPN-01 challenge on this port
	default:
		return nil, nil
	}
}

// browsersTrust reports whether browsers that are not told otherwise may trust the certificates of a configuration: those
// that somebody else has signed.
func browsersTrust(conf *tls.Config) bool {
	for _, c := range conf.Certificates {
		if c.Leaf == nil || bytes.Equal(c.Leaf.RawIssuer, c.Leaf.RawSubject) {
			return false
		}
	}
	return true
}

// selfSigned makes a certificate for this host under its names and addresses.
func selfSigned(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "tallow-server"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(0, 0, 30),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
	}
	if name, err := os.Hostname(); err == nil {
		template.DNSNames = append(template.DNSNames, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return tls.Certificate{}, err
	}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			template.IPAddresses = append(template.IPAddresses, n.IP)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
