// @ts-check
// Takes the link, which is a secret, out of the address bar, the session history and what the browser notes of this load, before anything
// else of the page is there: the page is loaded again without it, and app.js finds it in the tab's storage. The browser's own history of
// visits is out of a page's reach. A classic script: modules would come later.

{
  const take = () => {
    if (!location.hash) return;
    const link = location.href;
    history.replaceState(null, "", location.pathname + location.search);
    try {
      sessionStorage.setItem("tallow.link", link);
      sessionStorage.removeItem("tallow.room");
    } catch {
      // Refused: a reload would lose it, so app.js takes it from here.
      Object.assign(globalThis, { tallowLink: link });
      return;
    }
    location.reload();
  };
  take();
  addEventListener("hashchange", take); // another link, opened in this tab
}
