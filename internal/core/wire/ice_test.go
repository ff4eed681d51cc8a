package wire

import "testing"

func TestCheckICEServer(t *testing.T) {
	for name, tt := range map[string]struct {
		urls             []string
		user, credential string
		want             bool
	}{
		"STUN":                  {[]string{"stun:a.example", "STUNS:a.example:443"}, "", "", true},
		"TURN":                  {[]string{"turn:a.example?transport=udp", "TURNS:a.example", "stun:a.example"}, "u", "c", true},
		"TURN without user":     {[]string{"turn:a.example"}, "", "c", false},
		"TURN without password": {[]string{"stun:a.example", "turns:a.example"}, "u", "", false},
		"another scheme":        {[]string{"turn:a.example", "https://a.example"}, "u", "c", false},
		"no scheme":             {[]string{"a.example"}, "u", "c", false},
		"no host":               {[]string{"turn:"}, "u", "c", false},
		"empty":                 {[]string{""}, "u", "c", false},
		"none":                  {nil, "u", "c", false},
	} {
		if err := (ICEServer{URLs: tt.urls, Username: tt.user, Credential: tt.credential}).Check(); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
