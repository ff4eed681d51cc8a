// @ts-check
// Takes the link, which is a secret, out of the address bar, the history and what the browser notes of this load, before anything else of the
// page is there: the page is loaded again without it, and app.js finds it in the tab's storage. A classic script: modules would come later.

{
  const take = () => {
    if (!location.hash) return;
    const link = location.href;
    history.replaceState(null, "", location.pathname + location.search);
    try {
      sessionStorage.setItem("tallow.link", link);
      sessionStorage.removeItem("tallow.room");
    } catch {
      return; // refused: nothing can be handed on
    }
    location.reload();
  };
  take();
  addEventListener("hashchange", take); // another link, opened in this tab
}
