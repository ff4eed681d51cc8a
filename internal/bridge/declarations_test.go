//go:build !js

package bridge

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
)

const declarationsFile = "../../web/tallow.d.ts"

// declaration is a class or interface of tallow.d.ts.
type declaration struct {
	kind    string // "class" or "interface"
	extends string
	members []string
	open    bool // a class whose constructor the page may call
}

var (
	comment   = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	beginning = regexp.MustCompile(`(?ms)^export (?:abstract )?(class|interface) (\w+)(?:<.*?>)?(?: extends (\w+)(?:<.*?>)?)? \{\n(.*?)^\}`)
	memberOf  = regexp.MustCompile(`(?m)^  (?:readonly )?(\w+)[?(:<]`)
	unionOf   = regexp.MustCompile(`(?ms)^export type (\w+) =(.*?);`)
	quoted    = regexp.MustCompile(`"([^"]*)"`)
)

// declarations reads tallow.d.ts, which is laid out regularly enough for it.
func declarations(t *testing.T) (types map[string]declaration, unions map[string][]string, functions []string) {
	t.Helper()
	text, err := os.ReadFile(declarationsFile)
	if err != nil {
		t.Fatal(err)
	}
	bare := comment.ReplaceAllString(string(text), "")
	types, unions = map[string]declaration{}, map[string][]string{}
	for _, m := range beginning.FindAllStringSubmatch(bare, -1) {
		d := declaration{kind: m[1], extends: m[3]}
		for _, name := range memberOf.FindAllStringSubmatch(m[4], -1) {
			switch name := name[1]; name {
			case "constructor":
				d.open = true
			case "addEventListener", "removeEventListener": // EventTarget's own, with better types
			default:
				d.members = append(d.members, name)
			}
		}
		slices.Sort(d.members)
		d.members = slices.Compact(d.members)
		types[m[2]] = d
	}
	for _, m := range unionOf.FindAllStringSubmatch(bare, -1) {
		for _, value := range quoted.FindAllStringSubmatch(m[2], -1) {
			unions[m[1]] = append(unions[m[1]], value[1])
		}
		slices.Sort(unions[m[1]])
	}
	for _, m := range regexp.MustCompile(`(?m)^export function (\w+)`).FindAllStringSubmatch(bare, -1) {
		functions = append(functions, m[1])
	}
	slices.Sort(functions) // as a module's exports are
	return types, unions, functions
}

// TestDeclarations holds tallow.d.ts against what tallow.js exports.
func TestDeclarations(t *testing.T) {
	types, unions, functions := declarations(t)
	out, err := exec.Command("node", "surface.mjs").Output()
	if err != nil {
		t.Fatalf("node surface.mjs: %v (%s)", err, stderrOf(err))
	}
	var real struct {
		Classes map[string]struct {
			Extends       string
			Members       []string
			Constructible bool
		}
		Functions []string
		Messages  map[fault.Code]string
	}
	if err := json.Unmarshal(out, &real); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(functions, real.Functions) {
		t.Errorf("functions: declared %q, exported %q", functions, real.Functions)
	}
	for name, d := range types {
		if d.kind != "class" {
			continue
		}
		class, exported := real.Classes[name]
		if !exported {
			t.Errorf("class %s is declared and not exported", name)
			continue
		}
		slices.Sort(class.Members)
		if !slices.Equal(d.members, class.Members) {
			t.Errorf("class %s: declared %q, exported %q", name, d.members, class.Members)
		}
		if d.extends != class.Extends {
			t.Errorf("class %s: declared to extend %q, extends %q", name, d.extends, class.Extends)
		}
		if d.open != class.Constructible {
			t.Errorf("class %s: declared constructible: %v, is: %v", name, d.open, class.Constructible)
		}
	}
	for name := range real.Classes {
		if types[name].kind != "class" {
			t.Errorf("class %s is exported and not declared", name)
		}
	}

	var codes []string
	for _, code := range fault.Codes() {
		codes = append(codes, string(code))
		if real.Messages[code] != code.Message() {
			t.Errorf("message of %s: %q in errors.js, %q in package fault", code, real.Messages[code], code.Message())
		}
	}
	slices.Sort(codes)
	if !slices.Equal(unions["ErrorCode"], codes) {
		t.Errorf("codes: declared %q, package fault has %q", unions["ErrorCode"], codes)
	}
	if len(real.Messages) != len(codes) {
		t.Errorf("%d messages in errors.js, %d codes", len(real.Messages), len(codes))
	}
}

// TestSnapshots holds the snapshots of tallow.d.ts against the JSON that Go sends.
func TestSnapshots(t *testing.T) {
	types, unions, _ := declarations(t)
	for name, snapshot := range map[string]any{
		"Peer":         room.Peer{},
		"FileInfo":     room.File{},
		"Delivery":     room.Delivery{},
		"Ledger":       room.Ledger{},
		"LedgerMember": room.LedgerMember{},
		"LedgerEntry":  room.LedgerEntry{},
		"LedgerFile":   room.LedgerFile{},
		"Exposure":     room.Exposure{},
		"Features":     features{},
		"PeerStats":    room.PeerStats{},
	} {
		var fields []string
		for f := range fieldsOf(reflect.TypeOf(snapshot)) {
			fields = append(fields, f)
		}
		slices.Sort(fields)
		declared := slices.DeleteFunc(slices.Clone(types[name].members), func(m string) bool { return m == "markVerified" || m == "stats" })
		if !slices.Equal(declared, fields) {
			t.Errorf("%s: declared %q, Go sends %q", name, declared, fields)
		}
	}
	for name, values := range map[string][]string{
		"RoomState":     texts(room.StateConnecting, room.StatePending, room.StateOpen, room.StateDisconnected, room.StateClosed),
		"PeerState":     texts(room.PeerConnecting, room.PeerOpen, room.PeerClosing, room.PeerClosed, room.PeerFailed),
		"Quality":       texts(room.QualityExcellent, room.QualityGood, room.QualityFair, room.QualityPoor, room.QualityDisconnected),
		"ExposureKind":  texts(room.ExposedSignaling, room.ExposedSTUN, room.ExposedTURN, room.ExposedPlainRelay, room.ExposedPlainServer, room.ExposedDirect, room.ExposedCandidate, room.ExposedRoute),
		"Audience":      texts(room.ToServer, room.ToThirdParty, room.ToMembers, room.ToNetwork, room.ToNobody),
		"DeliveryState": texts(room.DeliveryOffered, room.DeliveryTransferring, room.DeliveryPaused, room.DeliveryInterrupted, room.DeliveryVerifying, room.DeliverySaving, room.DeliveryDone, room.DeliveryDeclined, room.DeliveryCancelled, room.DeliveryFailed),
	} {
		slices.Sort(values)
		if !slices.Equal(unions[name], values) {
			t.Errorf("%s: declared %q, Go has %q", name, unions[name], values)
		}
	}
}

func fieldsOf(t reflect.Type) map[string]bool {
	fields := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous {
			fields[name] = true
		}
	}
	return fields
}

func texts[T ~string](values ...T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

func stderrOf(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return string(exit.Stderr)
	}
	return ""
}
