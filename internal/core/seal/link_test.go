package seal

import (
	"errors"
	"fmt"
	"testing"
)

func TestLinkRoundTrip(t *testing.T) {
	l := NewLink(members()[1].ID())
	if other := NewLink(l.Owner); other.Secret == l.Secret {
		t.Fatal("two links have the same secret")
	}
	for _, s := range []string{
		l.Fragment(), "#" + l.Fragment(), "https://example.org/#" + l.Fragment(),
		"http://127.0.0.1:8080/a/b?c=d#" + l.Fragment(), " https://example.org/#" + l.Fragment() + "\r\n",
	} {
		got, err := ParseLink(s)
		if err != nil || got != l {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParseLinkErrors(t *testing.T) {
	good := testLink().Fragment()
	for _, c := range []struct {
		s    string
		want error
	}{
		{"", ErrLink},
		{"#", ErrLink},
		{"https://example.org/", ErrLink},
		{"https://example.org/#", ErrLink},
		{"https://example.org/" + good, ErrLink},
		{"https://example.org/#a#" + good, ErrLink},
		{good[:len(good)-1], ErrLink},
		{good + "A", ErrLink},
		{good + "=", ErrLink},
		{good[:40] + "\n" + good[40:], ErrLink},
		{good[:40] + "\n" + good[41:], ErrLink},
		{good[:40] + "+" + good[41:], ErrLink},
		{good[:40] + "/" + good[41:], ErrLink},
		{good[:40] + "%" + good[41:], ErrLink},
		{good[:40] + " " + good[41:], ErrLink},
		{good[:40] + "." + good[41:], ErrLink},
		{good[1:], ErrLink},
		{good[2:], ErrLink},
		{good[3:], ErrLink},
		{"V" + good[1:], ErrLink},
		{"v01" + good[2:], ErrLink},
		{"v+1" + good[2:], ErrLink},
		{"v-1" + good[2:], ErrLink},
		{"v1." + "", ErrLink},
		{"v2.", ErrLink},
		{"v2.!", ErrLink},
		{"v99999999999999999999.AAAA", ErrLink},
		{"v2" + good[2:], ErrLinkVersion},
		{"v0" + good[2:], ErrLinkVersion},
		{"https://example.org/#v2.short", ErrLinkVersion},
		{"#v65535.AAAA", ErrLinkVersion},
	} {
		if _, err := ParseLink(c.s); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.s, err, c.want)
		}
	}
	for n := range len(good) {
		if _, err := ParseLink(good[:n]); !errors.Is(err, ErrLink) {
			t.Errorf("truncated to %d: %v", n, err)
		}
	}
}

func TestLinkDoesNotPrintItself(t *testing.T) {
	l := testLink()
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, l); s != "tallow link" {
			t.Errorf("%s gives %q", format, s)
		}
	}
}

func TestRoomKeysDiffer(t *testing.T) {
	a := testLink()
	b, c := a, a
	b.Secret[31] ^= 1
	c.Owner[0] ^= 1
	ka, kb := a.Keys(), b.Keys()
	if ka.ID == kb.ID || ka.Token == kb.Token || ka.envelope == kb.envelope || ka.psk == kb.psk {
		t.Error("two secrets share a key")
	}
	if *c.Keys() != *ka {
		t.Error("the owner changes the keys")
	}
	if ka.Token == ka.envelope || ka.Token == ka.psk || ka.envelope == ka.psk {
		t.Error("two purposes share a key")
	}
	before := *ka
	ka.Destroy()
	if ka.Token == before.Token || ka.envelope == before.envelope || ka.psk == before.psk || ka.psk == [32]byte{} {
		t.Error("Destroy leaves a key")
	}
}
