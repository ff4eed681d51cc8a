package room

import "testing"

func TestLegible(t *testing.T) {
	for name, want := range map[string]string{
		"Ada":                          "Ada",
		"  Ada\n\tLovelace ":           "AdaLovelace",
		"\u202egpj.exe":                "gpj.exe",
		"a\u2066b\u2069\u200fc\ufeff":  "abc",
		"\x1b[31mred\x00":              "[31mred",
		"<b>bold</b>":                  "<b>bold</b>",
		"👩\u200d💻":                     "👩\u200d💻",
		"\u202e\u200b\ufeff":           "",
		"line\u2028separator\u2029end": "lineseparatorend",
	} {
		if got := legible(name); got != want {
			t.Errorf("%q is shown as %q, not %q", name, got, want)
		}
	}
}
