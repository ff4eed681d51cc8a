package bridge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json makes the compressed WebAssembly a tenth larger. This is the part of it that the bridge needs: both ends are this
// program's own, so that an odd value is a bug. Structs obey `json` tags with omitempty and embedding; without a tag a field's name is
// that of Go with a small first letter. A byte array is a string of hexadecimal digits.

// appendJSON appends v as JSON. It panics on what it does not know: maps, interfaces other than nil, functions and channels.
func appendJSON(b []byte, v any) []byte { return appendValue(b, reflect.ValueOf(v)) }

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Invalid:
		return append(b, "null"...)
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Float32, reflect.Float64:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(b, "null"...)
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Pointer, reflect.Interface:
		return appendValue(b, v.Elem())
	case reflect.Array:
		b = append(b, '"')
		for i := range v.Len() {
			b = hex.AppendEncode(b, []byte{byte(v.Index(i).Uint())})
		}
		return append(b, '"')
	case reflect.Slice:
		if v.IsNil() {
			return append(b, "null"...)
		}
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, v.Index(i))
		}
		return append(b, ']')
	case reflect.Struct:
		b = append(b, '{')
		b = appendFields(b, v)
		return append(b, '}')
	default:
		panic(fmt.Sprintf("bridge: %s in JSON", v.Type()))
	}
}

func appendFields(b []byte, v reflect.Value) []byte {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if field.Anonymous {
			b = appendFields(b, value)
			continue
		}
		name, omitEmpty := fieldName(field)
		if name == "-" || omitEmpty && (value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendString(b, name), ':')
		b = appendValue(b, value)
	}
	return b
}

func fieldName(f reflect.StructField) (name string, omitEmpty bool) {
	name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		name = strings.ToLower(f.Name[:1]) + f.Name[1:]
	}
	return name, option == "omitempty"
}

func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s { // what is not UTF-8 becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

var errJSON = errors.New("bridge: malformed JSON")

// parseJSON parses text into what v points to. What v has no field for is skipped, and null leaves a field as it is.
func parseJSON(text []byte, v any) (err error) {
	p := &parser{rest: text}
	p.value(reflect.ValueOf(v).Elem())
	p.space()
	if p.err == nil && len(p.rest) > 0 {
		p.fail("trailing text")
	}
	return p.err
}

// parser reads JSON. The first failure sticks, and leaves nothing to read.
type parser struct {
	rest []byte
	err  error
}

func (p *parser) fail(why string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", errJSON, why)
	}
	p.rest = nil
}

func (p *parser) space() {
	for len(p.rest) > 0 && (p.rest[0] == ' ' || p.rest[0] == '\n' || p.rest[0] == '\t' || p.rest[0] == '\r') {
		p.rest = p.rest[1:]
	}
}

// next takes c, if it comes next.
func (p *parser) next(c byte) bool {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) expect(c byte) {
	if !p.next(c) {
		p.fail(fmt.Sprintf("no %q where one is due", c))
	}
}

// list calls each for every element up to the closing bracket.
func (p *parser) list(closing byte, each func()) {
	if p.next(closing) {
		return
	}
	for p.err == nil {
		each()
		if p.next(closing) {
			return
		}
		p.expect(',')
	}
}

// value parses the next value into v. An invalid v skips it.
func (p *parser) value(v reflect.Value) {
	p.space()
	switch {
	case len(p.rest) == 0:
		p.fail("it ends early")
	case p.rest[0] == '{':
		p.rest = p.rest[1:]
		p.object(v)
	case p.rest[0] == '[':
		p.rest = p.rest[1:]
		p.array(v)
	case p.rest[0] == '"':
		p.rest = p.rest[1:]
		p.text(v)
	default:
		n := 0
		for n < len(p.rest) && !strings.ContainsRune(",]} \n\t\r", rune(p.rest[n])) {
			n++
		}
		word := string(p.rest[:n])
		p.rest = p.rest[n:]
		p.scalar(v, word)
	}
}

func (p *parser) object(v reflect.Value) {
	v = target(v)
	if v.IsValid() && v.Kind() != reflect.Struct {
		p.fail("an object for " + v.Type().String())
		return
	}
	p.list('}', func() {
		p.expect('"')
		name := p.quoted()
		p.expect(':')
		p.value(fieldOf(v, name))
	})
}

// target is what a pointer points to, which is made if need be.
func target(v reflect.Value) reflect.Value {
	if v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return v.Elem()
	}
	return v
}

func fieldOf(v reflect.Value, name string) reflect.Value {
	if !v.IsValid() {
		return v
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			if f := fieldOf(v.Field(i), name); f.IsValid() {
				return f
			}
		} else if n, _ := fieldName(field); n == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func (p *parser) array(v reflect.Value) {
	v = target(v)
	if !v.IsValid() {
		p.list(']', func() { p.value(v) })
		return
	}
	if v.Kind() != reflect.Slice {
		p.fail("an array for " + v.Type().String())
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	p.list(']', func() {
		element := reflect.New(v.Type().Elem()).Elem()
		p.value(element)
		v.Set(reflect.Append(v, element))
	})
}

func (p *parser) text(v reflect.Value) {
	s := p.quoted()
	v = target(v)
	switch {
	case !v.IsValid():
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Array:
		bytes, err := hex.DecodeString(s)
		if err != nil || len(bytes) != v.Len() {
			p.fail("not the hexadecimal digits of " + v.Type().String())
			return
		}
		reflect.Copy(v, reflect.ValueOf(bytes))
	default:
		p.fail("a string for " + v.Type().String())
	}
}

// quoted reads a string after its first quotation mark.
func (p *parser) quoted() string {
	var b []byte
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			if b == nil {
				b = p.rest[:i]
			}
			p.rest = p.rest[i+1:]
			return string(b)
		case c == '\\':
			if b == nil {
				b = append([]byte{}, p.rest[:i]...)
			}
			var n int
			b, n = unescape(b, p.rest[i:])
			if n == 0 {
				p.fail("a bad escape")
				return ""
			}
			i += n - 1
		case b != nil:
			b = append(b, c)
		}
	}
	p.fail("a string without end")
	return ""
}

// unescape appends what the escape at the start of s stands for, and returns the escape's length, 0 if it is none.
func unescape(b, s []byte) ([]byte, int) {
	if len(s) < 2 {
		return b, 0
	}
	if at := strings.IndexByte(`"\/bfnrt`, s[1]); at >= 0 {
		return append(b, "\"\\/\b\f\n\r\t"[at]), 2
	}
	r, ok := unit(s)
	if !ok {
		return b, 0
	}
	if utf16.IsSurrogate(r) {
		if low, ok := unit(s[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return utf8.AppendRune(b, pair), 12
			}
		}
		r = utf8.RuneError
	}
	return utf8.AppendRune(b, r), 6
}

// unit reads an escape of the form \u1234.
func unit(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}

func (p *parser) scalar(v reflect.Value, word string) {
	if word == "null" {
		return
	}
	v = target(v)
	var err error
	switch {
	case !v.IsValid():
	case v.Kind() == reflect.Bool:
		var x bool
		x, err = strconv.ParseBool(word)
		v.SetBool(x)
	case v.CanInt():
		var x int64
		x, err = strconv.ParseInt(word, 10, v.Type().Bits())
		v.SetInt(x)
	case v.CanUint():
		var x uint64
		x, err = strconv.ParseUint(word, 10, v.Type().Bits())
		v.SetUint(x)
	case v.CanFloat():
		var x float64
		x, err = strconv.ParseFloat(word, 64)
		v.SetFloat(x)
	default:
		p.fail("a bare word for " + v.Type().String())
	}
	if err != nil {
		p.fail(err.Error())
	}
}
