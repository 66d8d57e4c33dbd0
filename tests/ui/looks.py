"""How the page looks and is used: Markdown, colours, width, keyboard and screen reader."""

import re

from playwright.sync_api import expect

MARKDOWN = """# Title

Some **bold**, *slanted*, ~~gone~~ and `code <b>`; a [link](https://example.org/a_(b)) and snake_case_names.

1. one
   - inner
   - `x * y * z`
2. two

   more of two

```rust
fn main() { println!("**not bold**"); }

```

> quoted
> text

| a | b |
|---|--:|
| 1 | x \\| y |

---
3 * 4 * 5 is 60"""

HOSTILE = """<img src=x onerror="alert(1)"><script>alert(2)</script>
[run](javascript:alert(3)) [data](data:text/html,x) ![picture](https://example.org/tracker.png) <https://example.org>

```html
<script>alert(4)</script>
```"""


def test_markdown(site):
    site.open()
    site.answer_with(MARKDOWN)
    site.say("Hello")
    prose = site.last.locator(".prose").last
    counts = {"h3": 1, "strong": 1, "em": 1, "del": 1, "a": 1, "ol > li": 2, "ol > li > ul > li": 2, "pre": 1, "blockquote": 1, "hr": 1,
              "th": 2, "td": 2, "td.end": 1, "ol > li > p": 3}
    for selector, count in counts.items():
        expect(prose.locator(selector), selector).to_have_count(count)
    expect(prose.locator("p code").first).to_have_text("code <b>")
    expect(prose.locator("a")).to_have_attribute("href", "https://example.org/a_(b)")
    expect(prose.locator("a")).to_have_attribute("rel", "noopener noreferrer")
    expect(prose.locator("td").last).to_have_text("x | y")
    expect(prose).to_contain_text("snake_case_names")
    expect(prose).to_contain_text("3 * 4 * 5 is 60")
    assert site.copied(site.last) == MARKDOWN
    prose.locator(".code").get_by_role("button", name="Copy").click()
    expect(prose.locator(".code").get_by_role("button", name="Copied")).to_be_visible()
    assert site.page.evaluate("navigator.clipboard.readText()") == 'fn main() { println!("**not bold**"); }\n'


def test_what_a_model_writes_is_never_markup(site):
    page = site.open()
    site.answer_with(HOSTILE, reasoning_content=HOSTILE)
    site.say(HOSTILE)
    expect(site.last.locator("details.thinking")).to_be_visible()
    expect(page.locator("#log :is(img, script, iframe, [onerror])")).to_have_count(0)
    for link in page.locator("#log a").all():
        assert link.get_attribute("href").startswith("https://example.org"), link.get_attribute("href")
    expect(site.last.locator(".prose").last).to_contain_text("[run](javascript:alert(3))")


def test_endless_marks_stay_cheap(site):
    site.open()
    for text in ["*a " * 7000, "[" * 20_000, "> " * 5000 + "x", "- " * 3000 + "x", "`" * 9000 + " `", "__a **b ~~c " * 2000, "|a" * 4000 + "\n" + "|-" * 4000]:
        site.answer_with(text, times=1)
        site.say("Hello")
        longest = site.page.evaluate("""(text) => import(new URL('markdown.js', location)).then(({ render }) => {
            const start = performance.now();
            render(document.createElement('div'), text);
            return performance.now() - start;
        })""", text)
        assert longest < 1000, f"{longest:.0f} ms for {text[:20]!r}"


def test_joules_only_where_the_server_measures_them(site):
    site.open()
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    site.answer_with("Word " * 20, usage)
    site.say("Hello")
    facts = site.last.locator(".facts")
    expect(facts).to_contain_text("20 tokens")
    expect(facts).to_contain_text("prompt 50")
    assert not re.search(r"\bJ\b|cached|about", facts.inner_text()), facts.inner_text()
    site.page.unroute_all()
    site.answer_with("Word " * 20, {**usage, "energy_j": 2.5, "prompt_tokens_details": {"cached_tokens": 32}})
    site.say("Hello")
    for text in ["2.5 J", "8 tok/J", "(32 cached)"]:
        expect(site.last.locator(".facts")).to_contain_text(text)


def test_facts_that_are_absent_have_no_line(site):
    page = site.open(ready=False)
    model = '{"object":"list","data":[{"id":"m","object":"model","device":"cuda:0","parameters":6800000,"card":null}]}'
    page.route("**/v1/models", lambda route: route.fulfill(headers={"content-type": "application/json"}, body=model))
    site.load()
    page.click("#settings")
    expect(page.locator("#facts")).to_contain_text("cuda:0")
    expect(page.locator("#facts")).to_contain_text("6,800,000")
    text = page.locator("#facts").inner_text()
    assert not re.search("null|undefined|NaN|Card|Context", text), text
    assert not re.search("null|undefined", page.locator("#welcome").inner_text())


def test_narrow_pages_do_not_scroll_sideways(site):
    page = site.open(width=360, height=640, has_touch=True, is_mobile=True)
    long = "\n\n".join([MARKDOWN, "x" * 300, "`" + "y" * 200 + "`", "```\n" + "z" * 300 + "\n```", "|" + " wide cell that goes on |" * 9 + "\n" + "|---" * 9 + "|"])
    site.answer_with(long, {"prompt_tokens": 1234, "completion_tokens": 12345, "total_tokens": 13579, "energy_j": 123.4})
    site.say("w" * 300 + " and words")
    site.refuse(500, "e" * 300)
    site.say("Hello")
    site.questions.first.get_by_role("button", name="Edit").tap()
    fits(page)
    page.locator("#settings").tap()
    expect(page.locator("#panel-title")).to_be_focused()
    assert page.evaluate("document.getElementById('page').inert")
    fits(page)
    assert page.evaluate("document.getElementById('panel').scrollWidth <= innerWidth")
    page.locator("#panel-close").tap()
    assert not page.evaluate("document.getElementById('page').inert")
    small = page.evaluate("""[...document.querySelectorAll('button')].filter((button) => button.offsetParent)
        .map((button) => [button.textContent, button.getBoundingClientRect()])
        .filter(([, box]) => box.width < 24 || box.height < 24).map(([text]) => text)""")
    assert not small, f"too small to touch: {small}"


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


def test_colours(site):
    for scheme, other in [("light", "dark"), ("dark", "light")]:
        page = site.open(scheme=scheme)
        assert shown(page) == scheme
        readable(page)
        page.get_by_role("button", name=f"Use {other} colours").click()
        assert shown(page) == other
        readable(page)
        page.reload()
        assert shown(page) == other
        page.get_by_role("button", name=f"Use {scheme} colours").click()
        assert page.evaluate("document.documentElement.dataset.theme") is None


def shown(page):
    return "light" if luminance(rgb(page, "body", "backgroundColor")) > 0.5 else "dark"


def readable(page):
    """Text has a contrast of at least 4.5 on what it stands on."""
    paper = luminance(rgb(page, "body", "backgroundColor"))
    for selector in ["body", "#welcome p", ".tool", "#keys", "#welcome-facts"]:
        ink = luminance(rgb(page, selector, "color"))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, f"{selector}: {contrast:.2f}"


def rgb(page, selector, name):
    value = page.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    return [int(part) for part in re.findall(r"\d+", value)[:3]]


def luminance(colour):
    parts = [part / 255 for part in colour]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def tab_to(page, role, name, back=False):
    """Presses Tab until the thing of that name has the focus, which must then be seen."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        target = page.get_by_role(role, name=name)
        if target.count() and target.last.evaluate("(element) => element === document.activeElement"):
            style = target.last.evaluate("(element) => { const s = getComputedStyle(element); return [s.outlineStyle, parseFloat(s.outlineWidth)]; }")
            assert style[0] != "none" and style[1] >= 2, f"no focus to be seen on {name}: {style}"
            return target.last
    raise AssertionError(f"Tab does not reach {role} {name!r}")


def test_by_keyboard_alone(site):
    page = site.open()
    site.answer_with("An answer.")
    expect(page.locator("#draft")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#draft")).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    site.wait_done()
    assert site.requests[-1]["messages"][-1]["content"] == "one\ntwo"
    expect(page.locator("#draft")).to_be_focused()
    tab_to(page, "button", "Regenerate", back=True)
    page.keyboard.press("Enter")
    expect(site.last.locator(".turns")).to_contain_text("2/2")
    site.wait_done()
    expect(page.locator("#draft")).to_be_focused()
    tab_to(page, "button", "Edit", back=True)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Edit your message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
    tab_to(page, "button", "Settings", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("#panel-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.locator("#settings")).to_be_focused()
    tab_to(page, "link", "Skip to the message field", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("#draft")).to_be_focused()


def test_the_enter_of_an_input_method_sends_nothing(site):
    page = site.open()
    page.fill("#draft", "にほん")
    page.locator("#draft").dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    expect(page.locator("#log article")).to_have_count(0)


def test_for_screen_readers(site):
    page = site.open()
    page.evaluate("""() => {
        window.said = [];
        new MutationObserver(() => said.push(document.getElementById('status').textContent))
            .observe(document.getElementById('status'), { childList: true, subtree: true });
    }""")
    site.answer_with("One two three. " * 50)
    site.say("Hello")
    expect(page.locator("#status")).to_contain_text("Answer: One two three.")
    assert page.evaluate("said.length") == 1, "an answer is said once, when it is whole"
    site.refuse(500, "No.")
    site.say("Hello")
    expect(page.get_by_role("alert")).to_be_visible()
    page.click("#settings")
    unnamed = page.evaluate("""[...document.querySelectorAll('button, input, textarea, a')].filter((element) => element.offsetParent)
        .filter((element) => !(element.getAttribute('aria-label') || element.labels?.length || element.textContent.trim()))
        .map((element) => element.outerHTML)""")
    assert not unnamed, unnamed
    expect(page.get_by_role("heading", name="You").first).to_be_attached()
    expect(page.get_by_role("heading", name="Answer").first).to_be_attached()
    expect(page.get_by_role("region", name="Conversation")).to_be_visible()
    assert page.locator("#log").get_attribute("aria-live") is None


def test_scrolling_up_is_left_alone(site):
    page = site.open()
    site.answer_with("A line of text.\n\n" * 60)
    site.say("Hello")
    expect(page.locator("#latest")).to_be_hidden()
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -900)
    expect(page.locator("#latest")).to_be_visible()
    before = page.evaluate("scrollY")
    page.keyboard.type("more")
    page.click("#settings")
    page.fill("#set-max_tokens", "5")
    page.click("#panel-close")
    assert page.evaluate("scrollY") == before
    page.get_by_role("button", name="Latest").click()
    expect(page.locator("#latest")).to_be_hidden()
    assert page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
