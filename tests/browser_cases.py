"""A visit to the report's page, and what scripts can find out about it."""

from typing import Any

from playwright.sync_api import Browser

READ_CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = parts(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour.slice(0, 3);
      if (colour[3] > 0) throw new Error("a background that is seen through: " + one.className);
    }
    throw new Error("no background");
  };
  for (const one of document.querySelectorAll("details")) one.open = true;
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    const front = light(parts(getComputedStyle(node).color).slice(0, 3));
    const back = light(behind(node));
    const [high, low] = front > back ? [front, back] : [back, front];
    found.push([(high + 0.05) / (low + 0.05), walk.currentNode.textContent.trim()]);
  }
  return found;
}"""


class Visit:
    """A page that was opened, what it asked the network for, and what it complained about."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(180_000)  # a busy machine is no defect of the page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.settled()

    def settled(self) -> None:
        """Wait until the slices are drawn."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.stage canvas')].every((one) => one.ariaLabel)"
        )

    def pixels(self) -> list[str]:
        """The canvases' pictures, once they are drawn."""
        self.settled()
        return self.page.evaluate(
            "[...document.querySelectorAll('.stage canvas')].map((one) => one.toDataURL())"
        )
