"""The page in a browser of its own, with what every test asks of it and a watch over what no test may cause."""

import json
import re
from urllib.parse import urlsplit

from playwright.sync_api import expect

CHAT = "**/v1/chat/completions"
KEY = "sesame"
MODELS = "**/v1/models"

# A violation is told to the page alone, so it is put where the watch sees it.
WATCH = "addEventListener('securitypolicyviolation', (event) => console.error('CSP', event.violatedDirective, event.blockedURI))"


class SitePage:
    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        self.context = self.page = None
        self.errors, self.foreign, self.requests = [], [], []
        self.expected = []

    def open(self, width=1280, height=800, scheme="light", ready=True, **options):
        """Opens the page as a new visitor, and waits for the model's name."""
        self.close()
        self.context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self.note)
        self.response = None
        if ready:
            self.load()
        return self.page

    def load(self):
        self.response = self.page.goto(self.url)
        expect(self.page.locator("#model")).not_to_be_empty()

    def note(self, request):
        if urlsplit(request.url).scheme != "data" and not request.url.startswith(self.url):
            self.foreign.append(request.url)
        if request.url.endswith("/v1/chat/completions"):
            self.requests.append(json.loads(request.post_data))

    def close(self):
        if self.context:
            self.context.close()
        self.context = None

    def expect_status(self, *statuses):
        """The browser itself writes failed requests to the console; those of a test that causes them are no errors."""
        self.expected += [rf"Failed to load resource.*\b{status}\b" for status in statuses]

    def assert_clean(self):
        wrong = [text for text in self.errors if not any(re.search(pattern, text) for pattern in self.expected)]
        assert not wrong, f"on the console: {wrong}"
        assert not self.foreign, f"requests to elsewhere: {self.foreign}"

    # What one does

    def say(self, text, done=True):
        self.page.fill("#draft", text)
        self.page.press("#draft", "Enter")
        if done:
            self.wait_done()

    def wait_done(self):
        expect(self.page.locator("article.answer[aria-busy=true]")).to_have_count(0)
        expect(self.page.locator("#send")).to_have_accessible_name("Send")

    def set(self, **settings):
        """Writes into the settings and leaves the panel open."""
        if not self.page.locator("#panel").is_visible():
            self.page.click("#settings")
        for name, value in settings.items():
            self.page.fill("#system" if name == "system" else f"#set-{name}", str(value))

    def slow_down(self, bytes_a_second):
        """Lets what the server sends trickle in, so that there is time to see and stop it."""
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", {
            "offline": False, "latency": 0, "downloadThroughput": bytes_a_second, "uploadThroughput": -1})

    @property
    def questions(self):
        return self.page.locator("article.question")

    @property
    def answers(self):
        return self.page.locator("article.answer")

    @property
    def last(self):
        return self.answers.last

    def copied(self, article):
        """The source of a message, by way of its copy button."""
        article.hover()
        article.locator(".actions").get_by_text("Copy", exact=True).click()
        expect(article.get_by_text("Copied", exact=True)).to_be_visible()
        return self.page.evaluate("navigator.clipboard.readText()")

    # Answers that the server is not asked for: what it could say, or what is hard to provoke

    def answer_with(self, text, usage=None, times=None, **delta):
        """Chats are answered with `text`, in pieces, `times` times or always."""
        pieces = [{"content": piece} for piece in re.findall(r"[^]{1,7}".replace("[^]", r"[\s\S]"), text)]
        chunks = [chunk(each) for each in [{"role": "assistant", "content": ""}, *([delta] if delta else []), *pieces]]
        chunks += [chunk({}, "stop")] + ([{**chunk({}), "choices": [], "usage": usage}] if usage else [])
        self.answer_events([*map(json.dumps, chunks), "[DONE]"], times)

    def answer_events(self, events, times=None):
        body = "".join(f"data: {event}\n\n" for event in events)
        fulfil = lambda route: route.fulfill(status=200, headers={"content-type": "text/event-stream"}, body=body)
        self.page.route(CHAT, fulfil, **({"times": times} if times else {}))

    def refuse(self, status, message, pattern=CHAT, times=1, headers=None, **error):
        self.expect_status(status)
        body = json.dumps({"error": {"message": message, "type": "error", "param": None, "code": None, **error}})
        headers = {"content-type": "application/json", **(headers or {})}
        self.page.route(pattern, lambda route: route.fulfill(status=status, headers=headers, body=body), times=times)


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
