// A view joined to the kernel by anywidget; VIEW stands for its class, see view.py.
export default {
  render({ model, el }) {
    const host = document.createElement("div");
    el.append(host);
    const view = new VIEW();
    const unmount = mountShadow(host, CSS, view.card);
    view.open(decodeBinary(JSON.parse(model.get("data"))));
    const take = () => view.set(model.get("state"));
    take();
    const died = markLive(host, model);
    model.on("change:state", take);
    view.changed = (state) => { // the reader moved something
      model.set("state", { ...model.get("state"), ...state });
      model.save_changes();
    };
    return () => { model.off("change:state", take); view.close?.(); unmount(); died(); };
  },
};
